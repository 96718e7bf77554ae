// An endpoint of dialect 0.5 that claims or proves to be somebody else, for the tests of who is refused. Its lines are
// OWN URL when it is at the relay, LISTED when the bootstrap server has its agent, and what happens to its connections:
// DIALLED, OPEN, READ BYTES, CLOSED CODE REASON (the code "-": none of an application).
// usage: odd-endpoint --server HOST:PORT --space NAME [--claim URL] [--other-key] [--dial URL]
//   --claim      the url of its preflights, instead of its own
//   --other-key  its peers see another key than the relay
//   --dial       the peer that it dials; without it, it is listed, and waits to be dialled
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "kitsune2/http.hpp"
#include "kitsune2/testing/builders.hpp"
#include "support/raw_endpoint.hpp"

using namespace kitsune2;  // NOLINT(google-build-using-namespace)
using namespace std::chrono_literals;

namespace {

void say(const std::string& line) { std::cout << line << std::endl; }

struct Args {
  std::string server, space, dial;
  test::RawEndpointOptions endpoint;
};

class Odd {
 public:
  Odd(AsioRuntime& runtime, const Args& args)
      : runtime_(runtime),
        args_(args),
        http_(make_http_client(runtime)),
        endpoint_(runtime, make_ws_connector(runtime), "http://" + args.server + "/relay/", tally_, args.endpoint) {
    turn();
  }

 private:
  void turn() {
    if (endpoint_.is_up() && !std::exchange(began_, true)) begin();
    endpoint_.turn();
    runtime_.schedule_after(5ms, [this] { turn(); });
  }
  void begin() {
    say("OWN " + endpoint_.url().to_string());
    if (!args_.dial.empty()) {
      endpoint_.dial(*iroh::endpoint_id(Url::parse(args_.dial, url_form(Dialect::v0_5)).value()));
      return;
    }
    const auto agent = Ed25519LocalAgent::generate();
    testing::AgentInfoBuilder builder;
    builder.space = SpaceId::from_text(args_.space);
    builder.created_at = runtime_.wall_now();
    builder.url = endpoint_.url();
    HttpRequest request;
    request.method = HttpMethod::kPut;
    request.url =
        "http://" + args_.server + "/bootstrap/" + builder.space.to_string() + '/' + agent->agent().to_string();
    request.body = std::string(builder.sign(*agent)->encode());
    http_->request(std::move(request), [](const Result<HttpResponse>& answer) {
      say(answer && answer->status == 200 ? "LISTED" : "NOT LISTED");
    });
  }

  AsioRuntime& runtime_;
  const Args args_;
  std::unique_ptr<HttpClient> http_;
  test::RawTally tally_;
  bool began_ = false;
  test::RawEndpoint endpoint_;
};

}  // namespace

int main(int argc, char** argv) {
  Args args;
  args.endpoint.on_event = say;
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto value = [&] { return ++i < words.size() ? words[i] : std::string(); };
    if (words[i] == "--server") {
      args.server = value();
    } else if (words[i] == "--space") {
      args.space = value();
    } else if (words[i] == "--claim") {
      args.endpoint.claimed_url = value();
    } else if (words[i] == "--dial") {
      args.dial = value();
    } else if (words[i] == "--other-key") {
      args.endpoint.other_key = true;
    } else {
      std::cerr << "odd-endpoint: unknown argument " << words[i] << '\n';
      return 2;
    }
  }
  AsioRuntime runtime;
  std::unique_ptr<Odd> odd;
  runtime.start();
  runtime.post([&] { odd = std::make_unique<Odd>(runtime, args); });
  while (true) std::this_thread::sleep_for(1s);  // until it is killed
}
