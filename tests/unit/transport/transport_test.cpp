// make_transport over a backend that does what the test says.
#include "kitsune2/transport.hpp"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>

#include "core/access/stranger_book.hpp"
#include "core/access/unsent_book.hpp"
#include "hex.hpp"
#include "kitsune2/testing/sim_runtime.hpp"
#include "support/whole_messages.hpp"
#include "wire/k2proto.hpp"

namespace kitsune2 {
namespace {

using tests::hex;

class FakeBackend final : public TransportBackend {
 public:
  explicit FakeBackend(Runtime& runtime) : runtime_(runtime) {}
  void start(TransportEvents& e) override { events = &e; }
  std::optional<Url> url() const override { return own; }
  void send(const Url& peer, ByteChain message, Handler<> done) override {
    sent.emplace_back(peer, message.joined());
    pieces.emplace_back(message.pieces().begin(), message.pieces().end());
    runtime_.post([done = std::move(done)] { done({}); });
  }
  void disconnect(const Url& peer, const CloseReason& reason, Bytes farewell) override {
    disconnected.emplace_back(peer, reason, std::move(farewell));
  }
  void wasted(const Url& /*peer*/, std::uint64_t bytes) override { wasted_bytes += bytes; }
  TransportStats stats() const override {
    TransportStats s;
    s.backend = "fake";
    return s;
  }
  void stop(std::function<void()> done) override {
    stopped = true;
    runtime_.post(std::move(done));
  }

  Runtime& runtime_;
  TransportEvents* events = nullptr;
  std::optional<Url> own;
  std::vector<std::pair<Url, Bytes>> sent;
  std::vector<std::vector<Bytes>> pieces;  ///< of each message that was sent
  std::vector<std::tuple<Url, CloseReason, Bytes>> disconnected;
  std::uint64_t wasted_bytes = 0;
  bool stopped = false;
};

struct SpaceLog final : SpaceMessageHandler {
  void new_listening_address(const Url& own) override { log.push_back("address " + own.to_string()); }
  Result<void> recv_space_notify(const Url&, const SpaceId&, Bytes data) override {
    log.push_back("notify " + data.str());
    if (action) action();
    return refuse ? Result<void>(make_error(Errc::malformed, "no")) : Result<void>();
  }
  void peer_connect(const Url&) override { log.push_back("connect"); }
  void peer_disconnect(const Url&, const std::optional<std::string>& reason) override {
    log.push_back("disconnect " + reason.value_or("-"));
  }
  std::vector<std::string> log;
  std::function<void()> action;
  bool refuse = false;
};

struct ModuleLog final : ModuleMessageHandler {
  Result<void> recv_module_msg(const Url&, const SpaceId&, Bytes data) override {
    log.push_back("msg " + to_hex(data));
    return refuse ? Result<void>(make_error(Errc::malformed, "no")) : Result<void>();
  }
  void recv_progress(const Url&, std::size_t bytes) override { log.push_back("progress " + std::to_string(bytes)); }
  void peer_knows_us(const Url&) override { log.push_back("knows us"); }
  void peer_connect(const Url&) override { log.push_back("connect"); }
  void peer_disconnect(const Url&, const std::optional<std::string>&) override { log.push_back("disconnect"); }
  std::vector<std::string> log;
  bool refuse = false;
};

struct HostLog final : TransportHandler {
  void new_listening_address(const Url& own) override { log.push_back("address " + own.to_string()); }
  void peer_connect(const Url&) override { log.push_back("connect"); }
  void peer_disconnect(const Url&, const std::optional<std::string>& reason) override {
    log.push_back("disconnect " + reason.value_or("-"));
  }
  Result<Bytes> preflight_gather_outgoing(const Url&) override {
    if (refuse_out) return make_error(Errc::internal, "no preflight");
    return preflight;
  }
  Result<void> preflight_validate_incoming(const Url&, Bytes data) override {
    log.push_back("preflight " + data.str());
    return refuse_in ? Result<void>(make_error(Errc::blocked, "no")) : Result<void>();
  }
  bool allow(const Url& peer, const SpaceId* space, Direction direction) override {
    if (blocked_direction == direction) return false;
    return !(blocked_peer && *blocked_peer == peer) && !(space && blocked_space && *blocked_space == *space);
  }
  bool is_known(const Url& peer, const SpaceId&) override { return !strangers.contains(peer); }
  void on_stranger(const Url& peer, const SpaceId&) override { log.push_back("stranger " + peer.to_string()); }

  std::set<Url> strangers;
  std::vector<std::string> log;
  Bytes preflight;
  bool refuse_out = false, refuse_in = false;
  std::optional<Url> blocked_peer;
  std::optional<SpaceId> blocked_space;
  std::optional<Direction> blocked_direction;
};

using Log = std::vector<std::string>;

class TransportTest : public ::testing::Test {
 protected:
  TransportTest() {
    auto backend = std::make_unique<FakeBackend>(*runtime_);
    backend_ = backend.get();
    transport_ = make_transport(*runtime_, std::move(backend), host_);
    EXPECT_TRUE(transport_->register_space_handler(space_, space_log_).has_value());
    EXPECT_TRUE(transport_->register_module_handler(space_, "Fetch", module_log_).has_value());
  }
  Result<void> receive(const Bytes& message) { return backend_->events->recv_data(peer_, message); }
  Handler<> result() {
    return [this](Result<void> r) { results_.push_back(std::move(r)); };
  }

  testing::SimWorld world_;
  std::unique_ptr<testing::SimRuntime> runtime_ = world_.make_runtime();
  std::shared_ptr<HostLog> host_ = std::make_shared<HostLog>();
  std::shared_ptr<SpaceLog> space_log_ = std::make_shared<SpaceLog>();
  std::shared_ptr<ModuleLog> module_log_ = std::make_shared<ModuleLog>();
  FakeBackend* backend_ = nullptr;
  std::shared_ptr<Transport> transport_;
  std::vector<Result<void>> results_;
  const SpaceId space_ = SpaceId::from_text("k2-interop-space");
  const Url peer_ = *Url::parse("ws://relay:80/iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w");
};

TEST_F(TransportTest, CapturedMessagesAreRouted) {
  EXPECT_TRUE(receive(hex("0801")).has_value());
  EXPECT_TRUE(receive(hex("0802120e68656c6c6f2066726f6d20632b2b1a106b322d696e7465726f702d7370616365")).has_value());
  EXPECT_TRUE(receive(hex("08031226080112220a20c7c2f93dce625050e51b2be8e60b8fb92e8a490f6d04057c05565bd8a0dd28991a106b32"
                          "2d696e7465726f702d737061636522054665746368"))
                  .has_value());
  EXPECT_EQ(host_->log, Log{"preflight "});
  EXPECT_EQ(space_log_->log, Log{"notify hello from c++"});
  EXPECT_EQ(module_log_->log, Log{"msg 080112220a20c7c2f93dce625050e51b2be8e60b8fb92e8a490f6d04057c05565bd8a0dd2899"});
}

TEST_F(TransportTest, CapturedMessagesAreSent) {
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("hello from c++"), result());
  transport_->send_module(peer_, space_, "Fetch",
                          hex("080112220a20c7c2f93dce625050e51b2be8e60b8fb92e8a490f6d04057c05565bd8a0dd2899"),
                          result());
  EXPECT_TRUE(results_.empty());
  world_.run_ready();
  EXPECT_EQ(results_.size(), 2U);
  ASSERT_EQ(backend_->sent.size(), 2U);
  EXPECT_EQ(to_hex(backend_->sent[0].second),
            "0802120e68656c6c6f2066726f6d20632b2b1a106b322d696e7465726f702d7370616365");
  EXPECT_EQ(
      to_hex(backend_->sent[1].second),
      "08031226080112220a20c7c2f93dce625050e51b2be8e60b8fb92e8a490f6d04057c05565bd8a0dd28991a106b322d696e7465726f702d"
      "737061636522054665746368");
}

TEST_F(TransportTest, ABodyInPiecesIsFramedAndItsPiecesAreNotCopied) {
  const Bytes first(std::string(3'000, 'a')), second(std::string(3'000, 'b'));
  ByteChain body;
  body.append(first);
  body.append(second);
  transport_->send_module(peer_, space_, "Fetch", body, result());
  ByteChain small;
  small.append(Bytes::copy_of("sm"));
  small.append(Bytes::copy_of("all"));
  transport_->send_module(peer_, space_, "Fetch", small, result());
  ASSERT_EQ(backend_->sent.size(), 2U);
  EXPECT_EQ(backend_->sent[0].second, wire::whole_module(space_, "Fetch", body.joined()));
  std::size_t shared = 0;
  for (const Bytes& piece : backend_->pieces[0]) {
    shared += piece.data() == first.data() || piece.data() == second.data() ? 1U : 0U;
  }
  EXPECT_EQ(shared, 2U);
  EXPECT_EQ(backend_->sent[1].second, wire::whole_module(space_, "Fetch", as_bytes("small")));
  EXPECT_EQ(backend_->pieces[1].size(), 1U);
}

TEST_F(TransportTest, PreflightIsTheHostsAndAtLeastAType) {
  EXPECT_EQ(to_hex(*backend_->events->peer_connect(peer_)), "0801");
  host_->preflight = Bytes::copy_of("hi");
  EXPECT_EQ(to_hex(*backend_->events->peer_connect(peer_)), "080112026869");
  EXPECT_EQ(host_->log, (Log{"connect", "connect"}));
  EXPECT_EQ(space_log_->log.size(), 2U);
  EXPECT_EQ(module_log_->log.size(), 2U);
  host_->refuse_out = true;
  EXPECT_EQ(backend_->events->peer_connect(peer_).error().code, Errc::internal);
  EXPECT_EQ(host_->log.size(), 2U) << "nobody hears of a connection that is refused";
  host_->refuse_in = true;
  EXPECT_EQ(receive(hex("080112026869")).error().code, Errc::blocked);
}

TEST_F(TransportTest, UnknownSpaceModuleAndTypeAreIgnored) {
  EXPECT_TRUE(receive(wire::encode_notify(SpaceId::from_text("other"), as_bytes("x"))).has_value());
  EXPECT_TRUE(receive(wire::whole_module(space_, "fetch", as_bytes("x"))).has_value()) << "case matters";
  EXPECT_TRUE(receive(wire::whole_module(SpaceId::from_text("other"), "Fetch", as_bytes("x"))).has_value());
  EXPECT_TRUE(receive(hex("")).has_value()) << "UNSPECIFIED";
  EXPECT_TRUE(receive(hex("0809")).has_value());
  EXPECT_TRUE(receive(hex("0802120178")).has_value()) << "NOTIFY without a space";
  EXPECT_TRUE(receive(hex("08031201781a106b322d696e7465726f702d7370616365")).has_value()) << "MODULE without a module";
  EXPECT_TRUE(space_log_->log.empty());
  EXPECT_TRUE(module_log_->log.empty());
}

TEST_F(TransportTest, ErrorsCloseTheConnection) {
  EXPECT_EQ(receive(hex("ff")).error().code, Errc::malformed);
  space_log_->refuse = true;
  EXPECT_EQ(receive(wire::encode_notify(space_, as_bytes("x"))).error().code, Errc::malformed);
  module_log_->refuse = true;
  EXPECT_EQ(receive(wire::whole_module(space_, "Fetch", as_bytes("x"))).error().code, Errc::malformed);
  const auto bye = receive(wire::encode_disconnect("going\nhome"));
  ASSERT_TRUE(bye.has_error());
  EXPECT_EQ(bye.error().code, Errc::disconnected);
  EXPECT_EQ(bye.error().message, "the peer left: going\\x0ahome");
}

TEST_F(TransportTest, HandlersAreExclusive) {
  EXPECT_EQ(transport_->register_space_handler(space_, space_log_).error().code, Errc::already_exists);
  EXPECT_EQ(transport_->register_module_handler(space_, "Fetch", module_log_).error().code, Errc::already_exists);
  EXPECT_TRUE(transport_->register_module_handler(space_, "Publish", module_log_).has_value());
  EXPECT_TRUE(transport_->register_module_handler(SpaceId::from_text("two"), "Fetch", module_log_).has_value());
  transport_->unregister_space(space_);
  EXPECT_TRUE(receive(wire::whole_module(space_, "Fetch", as_bytes("x"))).has_value());
  EXPECT_TRUE(module_log_->log.empty());
  EXPECT_TRUE(transport_->register_space_handler(space_, space_log_).has_value());
}

TEST_F(TransportTest, EventsReachEveryHandler) {
  backend_->own = peer_;
  backend_->events->new_listening_address(peer_);
  backend_->events->recv_progress(peer_, 77);
  backend_->events->peer_disconnect(peer_, "why");
  backend_->events->peer_disconnect(peer_, std::nullopt);
  EXPECT_EQ(host_->log, (Log{"address " + peer_.to_string(), "disconnect why", "disconnect -"}));
  EXPECT_EQ(space_log_->log, (Log{"address " + peer_.to_string(), "disconnect why", "disconnect -"}));
  EXPECT_EQ(module_log_->log, (Log{"progress 77", "disconnect", "disconnect"}));
  EXPECT_EQ(transport_->url(), peer_);
}

TEST_F(TransportTest, BlockedPeersAreNeitherHeardNorAnswered) {
  host_->blocked_peer = peer_;
  EXPECT_EQ(backend_->events->peer_connect(peer_).error().code, Errc::blocked);
  EXPECT_EQ(receive(hex("0801")).error().code, Errc::blocked);
  EXPECT_TRUE(receive(wire::encode_notify(space_, as_bytes("x"))).has_value());
  EXPECT_TRUE(receive(wire::whole_module(space_, "Fetch", as_bytes("x"))).has_value());
  transport_->send_space_notify(peer_, space_, {}, result());
  transport_->send_module(peer_, space_, "Fetch", {}, result());
  EXPECT_TRUE(results_.empty()) << "never from inside the call";
  world_.run_ready();
  ASSERT_EQ(results_.size(), 2U);
  for (const auto& r : results_) EXPECT_EQ(r.error().code, Errc::blocked);
  EXPECT_TRUE(backend_->sent.empty());
  EXPECT_TRUE(space_log_->log.empty());
  EXPECT_TRUE(module_log_->log.empty());
  EXPECT_TRUE(host_->log.empty());
  EXPECT_EQ(transport_->stats().blocked_message_count, 6U);
}

TEST_F(TransportTest, BlockedSpacesAreDroppedOthersAreNot) {
  host_->blocked_space = space_;
  EXPECT_TRUE(backend_->events->peer_connect(peer_).has_value());
  EXPECT_TRUE(receive(wire::encode_notify(space_, as_bytes("x"))).has_value());
  EXPECT_EQ(space_log_->log, Log{"connect"});
  auto other = std::make_shared<SpaceLog>();
  const SpaceId two = SpaceId::from_text("two");
  ASSERT_TRUE(transport_->register_space_handler(two, other).has_value());
  EXPECT_TRUE(receive(wire::encode_notify(two, as_bytes("y"))).has_value());
  EXPECT_EQ(other->log, Log{"notify y"});
}

TEST_F(TransportTest, ThePeerMayBeHeardAndNotSpokenToAndTheOtherWayRound) {
  host_->blocked_direction = Direction::outgoing;
  EXPECT_TRUE(backend_->events->peer_connect(peer_).has_error()) << "no preflight for it";
  EXPECT_TRUE(receive(hex("0801")).has_value());
  EXPECT_TRUE(receive(wire::encode_notify(space_, as_bytes("x"))).has_value());
  EXPECT_EQ(space_log_->log, Log{"notify x"});
  transport_->send_module(peer_, space_, "Fetch", {}, result());
  transport_->send_space_notify(peer_, space_, {}, result());
  host_->blocked_direction = Direction::incoming;
  EXPECT_TRUE(backend_->events->peer_connect(peer_).has_value());
  EXPECT_TRUE(receive(hex("0801")).has_error());
  EXPECT_TRUE(receive(wire::whole_module(space_, "Fetch", as_bytes("x"))).has_value());
  EXPECT_EQ(module_log_->log, Log{"connect"}) << "dropped";
  transport_->send_module(peer_, space_, "Fetch", {}, result());
  world_.run_ready();
  ASSERT_EQ(results_.size(), 3U);
  EXPECT_TRUE(results_[0].has_error() && results_[1].has_error());
  EXPECT_TRUE(results_[2].has_value());
}

TEST_F(TransportTest, TheRulesOfLaterDialects) {
  EXPECT_EQ(transport_->dialect(), Dialect::v0_2);
  for (const Dialect dialect : {Dialect::v0_4, Dialect::v0_5}) {
    auto backend = std::make_unique<FakeBackend>(*runtime_);
    FakeBackend* raw = backend.get();
    const auto transport = make_transport(*runtime_, std::move(backend), host_, dialect);
    EXPECT_EQ(transport->dialect(), dialect);
    const auto module = std::make_shared<ModuleLog>();
    ASSERT_TRUE(transport->register_module_handler(space_, "Fetch", module).has_value());
    module->refuse = true;
    // What is refused is dropped, at the peer's expense; the connection stays.
    EXPECT_TRUE(raw->events->recv_data(peer_, hex("ff")).has_value());
    EXPECT_EQ(raw->wasted_bytes, 1U);
    const Bytes refused = wire::whole_module(space_, "Fetch", as_bytes("x"));
    EXPECT_TRUE(raw->events->recv_data(peer_, refused).has_value());
    EXPECT_EQ(raw->wasted_bytes, 1 + refused.size());
    module->refuse = false;
    EXPECT_TRUE(raw->events->recv_data(peer_, refused).has_value());
    EXPECT_EQ(raw->wasted_bytes, 1 + refused.size());
    module->refuse = true;
    module->log.pop_back();
    EXPECT_EQ(module->log, (Log{"knows us", "msg 78"}));
    // So is what a peer sends that is blocked in the space.
    host_->blocked_space = space_;
    const std::uint64_t before = raw->wasted_bytes;
    EXPECT_TRUE(raw->events->recv_data(peer_, refused).has_value());
    EXPECT_GT(raw->wasted_bytes, before);
    EXPECT_EQ(module->log, (Log{"knows us", "msg 78"}));
    host_->blocked_space.reset();
    EXPECT_TRUE(raw->events->recv_data(peer_, wire::encode_disconnect("bye")).has_value());
    // Except for a preflight.
    host_->refuse_in = true;
    EXPECT_TRUE(raw->events->recv_data(peer_, hex("080112026869")).has_error());
    // The transport itself tells the reason, so there is no last message.
    transport->disconnect(peer_, {CloseCode::failure, "why"});
    ASSERT_EQ(raw->disconnected.size(), 1U);
    EXPECT_EQ(std::get<1>(raw->disconnected[0]).text, "why");
    EXPECT_TRUE(std::get<2>(raw->disconnected[0]).empty());
  }
}

TEST_F(TransportTest, HandlersMayCallBack) {
  space_log_->action = [&] {
    transport_->unregister_space(space_);
    transport_->disconnect(peer_, {CloseCode::failure, "done with you"});
  };
  EXPECT_TRUE(receive(wire::encode_notify(space_, as_bytes("x"))).has_value());
  ASSERT_EQ(backend_->disconnected.size(), 1U);
  EXPECT_EQ(std::get<1>(backend_->disconnected[0]).code, CloseCode::failure);
  EXPECT_EQ(std::get<1>(backend_->disconnected[0]).text, "done with you");
  EXPECT_EQ(to_hex(std::get<2>(backend_->disconnected[0])), "080f120d646f6e65207769746820796f75");
  transport_->disconnect(peer_, {});
  EXPECT_EQ(std::get<1>(backend_->disconnected[1]).code, CloseCode::on_purpose);
  EXPECT_TRUE(std::get<2>(backend_->disconnected[1]).empty());
}

TEST_F(TransportTest, AfterStop) {
  bool stopped = false;
  transport_->stop([&] { stopped = true; });
  EXPECT_FALSE(stopped);
  transport_->send_space_notify(peer_, space_, {}, result());
  world_.run_ready();
  EXPECT_TRUE(stopped);
  EXPECT_TRUE(backend_->stopped);
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_EQ(results_[0].error().code, Errc::cancelled);
  EXPECT_EQ(space_log_.use_count(), 1) << "handlers are let go";
  bool again = false;
  transport_->stop([&] { again = true; });
  world_.run_ready();
  EXPECT_TRUE(again);
}

TEST_F(TransportTest, WithoutAHost) {
  auto backend = std::make_unique<FakeBackend>(*runtime_);
  FakeBackend* raw = backend.get();
  auto transport = make_transport(*runtime_, std::move(backend), nullptr);
  EXPECT_EQ(to_hex(*raw->events->peer_connect(peer_)), "0801");
  EXPECT_TRUE(raw->events->recv_data(peer_, hex("080112026869")).has_value());
  raw->events->new_listening_address(peer_);
  raw->events->peer_disconnect(peer_, std::nullopt);
}

// Where the dialect asks for known peers.
class StrangersTest : public TransportTest {
 protected:
  StrangersTest() {
    auto backend = std::make_unique<FakeBackend>(*runtime_);
    backend_ = backend.get();
    transport_ = make_transport(*runtime_, std::move(backend), host_, Dialect::v0_5);
    EXPECT_TRUE(transport_->register_space_handler(space_, space_log_).has_value());
    EXPECT_TRUE(transport_->register_module_handler(space_, "Fetch", module_log_).has_value());
    host_->strangers = {peer_};
  }
  void notify(const std::string& text, const SpaceId& space) {
    EXPECT_TRUE(receive(wire::encode_notify(space, Bytes::copy_of(text).view())).has_value());
  }
  void known() {
    host_->strangers.clear();
    transport_->on_peer_known(space_, peer_);
    world_.run_ready();
  }
};

TEST_F(StrangersTest, MessagesWaitUntilThePeerIsKnown) {
  EXPECT_TRUE(receive(hex("0801")).has_value()) << "a preflight passes";
  notify("one", space_);
  notify("two", space_);
  world_.run_ready();
  EXPECT_TRUE(space_log_->log.empty());
  EXPECT_EQ(transport_->stats().waiting_message_count, 2U);
  const std::string asked = "stranger " + peer_.to_string();
  EXPECT_EQ(host_->log, (Log{"preflight ", asked, asked}));
  world_.run_for(std::chrono::seconds(1));
  EXPECT_EQ(host_->log.size(), 4U) << "asked again";
  EXPECT_FALSE(transport_->is_known_to(space_, peer_));
  EXPECT_TRUE(module_log_->log.empty());
  known();
  EXPECT_EQ(module_log_->log, (Log{"knows us"})) << "told once";
  EXPECT_EQ(space_log_->log, (Log{"notify one", "notify two"}));
  EXPECT_TRUE(transport_->is_known_to(space_, peer_));
  notify("three", space_);
  EXPECT_EQ(space_log_->log.size(), 3U);
  world_.run_for(std::chrono::seconds(5));
  EXPECT_EQ(host_->log.size(), 4U);
  EXPECT_EQ(transport_->stats().blocked_message_count, 0U);
  EXPECT_EQ(transport_->stats().waiting_message_count, 0U);
}

TEST_F(StrangersTest, MessagesThatWaitForTooLongOrAreTooManyAreDroppedAndCounted) {
  notify("one", space_);
  world_.run_for(StrangerBook::kPatience + std::chrono::seconds(2));
  EXPECT_EQ(transport_->stats().blocked_message_count, 1U);
  for (std::size_t i = 0; i < StrangerBook::kMostMessages; ++i) notify("many", space_);
  EXPECT_EQ(backend_->wasted_bytes, 0U);
  notify("one too many", space_);
  EXPECT_GE(backend_->wasted_bytes, std::string_view("one too many").size()) << "it is dropped at the peer's expense";
  EXPECT_EQ(transport_->stats().blocked_message_count, 2U);
  EXPECT_EQ(transport_->stats().waiting_message_count, StrangerBook::kMostMessages);
  notify("elsewhere", SpaceId::from_text("not here"));
  EXPECT_EQ(transport_->stats().waiting_message_count, StrangerBook::kMostMessages);
  transport_->unregister_space(space_);
  EXPECT_EQ(transport_->stats().waiting_message_count, 0U);
  known();
  for (const std::string& line : space_log_->log) EXPECT_FALSE(line.starts_with("notify")) << line;
}

// A connection ends also when another one takes its place, or when its peer has said everything.
TEST_F(StrangersTest, WhatWaitsIsHandledAlsoIfTheConnectionHasEnded) {
  notify("one", space_);
  backend_->events->peer_disconnect(peer_, std::nullopt);
  EXPECT_EQ(transport_->stats().waiting_message_count, 1U);
  known();
  EXPECT_TRUE(std::count(space_log_->log.begin(), space_log_->log.end(), "notify one") == 1);
  EXPECT_EQ(transport_->stats().blocked_message_count, 0U);
}

TEST_F(StrangersTest, WhatWaitsOfAPeerThatIsBlockedMeanwhileIsNotHandled) {
  notify("one", space_);
  host_->blocked_peer = peer_;
  known();
  EXPECT_TRUE(space_log_->log.empty());
}

TEST_F(StrangersTest, ANewMessageDoesNotOvertakeThoseThatWait) {
  notify("one", space_);
  notify("two", space_);
  host_->strangers.clear();
  transport_->on_peer_known(space_, peer_);
  notify("three", space_);
  world_.run_ready();
  EXPECT_EQ(space_log_->log, (Log{"notify one", "notify two", "notify three"}));
}

TEST_F(StrangersTest, WhatIsSentToAStrangerWaitsUntilItIsKnown) {
  for (const char* text : {"one", "two"}) transport_->send_space_notify(peer_, space_, Bytes::copy_of(text), result());
  transport_->send_module(peer_, space_, "Fetch", Bytes::copy_of("three"), result());
  world_.run_ready();
  EXPECT_TRUE(results_.empty());
  EXPECT_TRUE(backend_->sent.empty());
  EXPECT_EQ(transport_->stats().waiting_message_count, 3U);
  const std::string asked = "stranger " + peer_.to_string();
  EXPECT_EQ(host_->log, (Log{asked, asked, asked}));
  world_.run_for(std::chrono::seconds(2));
  EXPECT_EQ(host_->log.size(), 5U) << "asked again each second";
  // What is sent as soon as it is known does not overtake.
  host_->strangers.clear();
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("four"), result());
  transport_->on_peer_known(space_, peer_);
  world_.run_ready();
  ASSERT_EQ(backend_->sent.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) {
    const std::string text = std::array{"one", "two", "three", "four"}[i];
    EXPECT_NE(backend_->sent[i].second.str().find(text), std::string::npos) << text;
  }
  ASSERT_EQ(results_.size(), 4U);
  for (const auto& one : results_) EXPECT_TRUE(one.has_value());
  EXPECT_EQ(transport_->stats().waiting_message_count, 0U);
  EXPECT_EQ(transport_->stats().blocked_message_count, 0U);
}

TEST_F(StrangersTest, WhatIsSentToAStrangerThatStaysOneFails) {
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("x"), result());
  world_.run_for(UnsentBook::kPatience - std::chrono::seconds(1));
  EXPECT_TRUE(results_.empty());
  world_.run_for(std::chrono::seconds(2));
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_EQ(results_[0].error().code, Errc::blocked);
  EXPECT_EQ(results_[0].error().message, "no agent of the space is known at " + peer_.to_string());
  EXPECT_EQ(transport_->stats().blocked_message_count, 1U);
  known();
  EXPECT_TRUE(backend_->sent.empty());
}

TEST_F(StrangersTest, OnlySoMuchWaitsForStrangers) {
  for (std::size_t i = 0; i < UnsentBook::kMostMessages; ++i)
    transport_->send_space_notify(peer_, space_, Bytes::copy_of("x"), result());
  world_.run_ready();
  EXPECT_TRUE(results_.empty());
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("one too many"), result());
  world_.run_ready();
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_EQ(results_[0].error().code, Errc::blocked);
  known();
  EXPECT_EQ(backend_->sent.size(), UnsentBook::kMostMessages);
  host_->strangers = {peer_};
  const Bytes half(std::vector<std::uint8_t>(UnsentBook::kMostBytes / 2));
  for (int i = 0; i < 2; ++i) transport_->send_space_notify(peer_, space_, half, result());
  world_.run_ready();
  EXPECT_EQ(results_.back().error().code, Errc::blocked) << "with what surrounds it, the second is too much";
  EXPECT_EQ(transport_->stats().waiting_message_count, 1U);
}

TEST_F(StrangersTest, WhatWaitsForAStrangerEndsWithItsSpaceAndWithTheTransport) {
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("x"), result());
  transport_->unregister_space(space_);
  world_.run_ready();
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_EQ(results_[0].error().code, Errc::cancelled);
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("x"), result());
  transport_->stop([] {});
  world_.run_ready();
  ASSERT_EQ(results_.size(), 2U);
  EXPECT_EQ(results_[1].error().code, Errc::cancelled);
  EXPECT_TRUE(backend_->sent.empty());
}

TEST_F(StrangersTest, NothingWaitsForAPeerThatIsBlockedMeanwhile) {
  transport_->send_space_notify(peer_, space_, Bytes::copy_of("x"), result());
  host_->blocked_peer = peer_;
  known();
  ASSERT_EQ(results_.size(), 1U);
  EXPECT_EQ(results_[0].error().message, "the peer is blocked");
  EXPECT_TRUE(backend_->sent.empty());
}

}  // namespace
}  // namespace kitsune2
