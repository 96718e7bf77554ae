// Lines and events of a node that serves, whenever what others see of it changes.
#include "serving_display.hpp"

namespace kitsune2::cli {

void ServingDisplay::look() {
  FetchStats stats;
  std::string url, refused;
  std::optional<TransportFailure> failure;
  node_.node().run([&] {
    for (const auto& at : spaces_) {
      const auto one = at->fetch().stats();
      stats.ops_served += one.ops_served;
      stats.bytes_served += one.bytes_served;
      if (const auto status = at->bootstrap().status(); status.put_failure && refused.empty())
        refused = files::printable(status.put_failure->message);
    }
    if (const auto at = node_.space()->current_url()) url = at->to_string();
    failure = node_.space()->transport_failure();
  });
  say_where(url, failure);
  // Without a relay that is all that matters, and it was said.
  if (!url.empty()) say_listed(refused);
  if (stats.ops_served == served_) return;
  served_ = stats.ops_served;
  out_.status("served " + std::to_string(stats.ops_served) + " ops, " +
              human_bytes(static_cast<double>(stats.bytes_served)));
  out_.event(JsonLine("served").add("ops", stats.ops_served).add("bytes", stats.bytes_served));
}

void ServingDisplay::say_where(const std::string& url, const std::optional<TransportFailure>& failure) {
  if (!url.empty() && url != url_) {
    out_.note("serving at " + url + "; Ctrl-C ends it");
    out_.event(JsonLine("online").add("url", url));
    said_offline_.clear();
  }
  url_ = url;
  // Connecting takes a moment at the start, which is not worth a line.
  if (!url.empty() || (!failure && Clock::now() - since_ <= std::chrono::seconds(3))) return;
  const std::string why = failure ? files::printable(failure->error.message) : "no answer yet";
  if (why == said_offline_) return;
  out_.warn("kitsune2: the relay " + node_.node().relay_url() + " cannot be reached: " + why + "; still trying");
  out_.event(JsonLine("offline").add("relay", node_.node().relay_url()).add("reason", why));
  said_offline_ = why;
}

void ServingDisplay::say_listed(const std::string& refused) {
  if (refused == said_refused_) return;
  if (refused.empty()) {
    out_.note("the bootstrap server lists this node again");
    out_.event(JsonLine("listed"));
  } else {
    out_.warn("kitsune2: the bootstrap server does not list this node, so nobody new finds it: " + refused +
              "; still trying");
    out_.event(JsonLine("not_listed").add("reason", refused));
  }
  said_refused_ = refused;
}

}  // namespace kitsune2::cli
