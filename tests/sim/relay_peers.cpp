// Peers behind the relay that speak the protocol and misbehave.
#include "sim/relay_peers.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "kitsune2/testing/builders.hpp"
#include "kitsune2/transport_tx5.hpp"
#include "support/whole_messages.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::sim {

class BadPeer::Handler final : public ModuleMessageHandler {
 public:
  explicit Handler(BadPeer& owner) : owner_(owner) {}
  Result<void> recv_module_msg(const Url& peer, const SpaceId&, Bytes data) override {
    const auto message = wire::decode_fetch(Dialect::v0_2, data);
    if (message && message->type == wire::FetchMessageType::request) {
      owner_.requested(peer, message->op_ids.ids<OpId>());
    }
    return {};
  }

 private:
  BadPeer& owner_;
};

BadPeer::BadPeer(testing::SimWorld& world, SimNet& net, const Tx5TransportConfig& config, BadKind kind,
                 const std::vector<MetaOp>& ops)
    : world_(world),
      net_(net),
      kind_(kind),
      ops_(ops),
      host_(net.add_host("bad" + std::to_string(static_cast<int>(kind)))),
      runtime_(world.make_runtime()) {
  net_.up(host_, *runtime_);
  auto own = config;
  own.message_size_max = 16U << 20;
  own.max_queue_bytes_per_peer = 64U << 20;
  auto backend = make_tx5_transport(
      *runtime_, std::shared_ptr<WsConnector>(net::make_ws_connector(*runtime_, net_.dial(host_))), own);
  EXPECT_TRUE(backend.has_value());
  transport_ = make_transport(*runtime_, std::move(*backend), nullptr);
  EXPECT_TRUE(transport_->register_module_handler(kSimSpace, kFetchModule, std::make_shared<Handler>(*this)));
  if (kind_ == BadKind::flapping) flap();
}

BadPeer::~BadPeer() {
  runtime_->crash();
  net_.down(host_, false);
  transport_.reset();
}

void BadPeer::offer(const Url& to, const std::vector<OpId>& ids) {
  transport_->send_module(to, kSimSpace, kPublishModule, wire::encode_publish_ops(Dialect::v0_2, ids),
                          [](const Result<void>&) {});
}

void BadPeer::answer(const Url& to, const std::vector<Bytes>& ops) {
  transport_->send_module(to, kSimSpace, kFetchModule, wire::fetch_response_body(ops), [](const Result<void>&) {});
}

std::vector<Bytes> BadPeer::held(const std::vector<OpId>& ids, std::size_t one_in) {
  std::vector<Bytes> out;
  for (const auto& id : ids) {
    for (const auto& op : ops_) {
      if (op.op_id == id && pick(one_in) == 0) out.push_back(op.op_data);
    }
  }
  return out;
}

void BadPeer::requested(const Url& from, const std::vector<OpId>& ids) {
  std::vector<Bytes> lies;
  switch (kind_) {
    case BadKind::silent:
      return;
    case BadKind::flapping:
      return answer(from, held(ids, 1));
    case BadKind::slow:
      runtime_->schedule_after(std::chrono::milliseconds(500 + pick(9'000)),
                               [this, from, some = held(ids, 4)] { answer(from, some); });
      return;
    case BadKind::liar:
      if (pick(8) == 0) return transport_->disconnect(from, {.text = "lies"});
      if (pick(8) == 0) {
        return transport_->send_module(from, kSimSpace, kFetchModule, Bytes::copy_of("nonsense"),
                                       [](const Result<void>&) {});
      }
      for (std::size_t i = 0; i < ids.size() && i < 8; ++i)
        lies.push_back(testing::make_op(1'000'000 + pick(1'000), 40));
      if (pick(4) == 0) lies.push_back(ops_[pick(ops_.size())].op_data);  // true, and perhaps not requested
      return answer(from, lies);
    case BadKind::endless:
      return go_on(from, 60);
    case BadKind::oversized:
      if (pick(2) == 0) {
        lies.push_back(testing::make_op(3'000'000, 150'000));  // not an op by the policy
      } else {
        lies.assign(3, testing::make_op(3'000'000, 1'000'000));  // not a message by the transport
      }
      return answer(from, lies);
  }
}

void BadPeer::go_on(const Url& to, int left) {
  if (left == 0) return;
  std::vector<Bytes> lies;
  for (int i = 0; i < 5; ++i) lies.push_back(testing::make_op(2'000'000 + pick(100'000), 400));
  answer(to, lies);
  runtime_->schedule_after(std::chrono::milliseconds(200), [this, to, left] { go_on(to, left - 1); });
}

void BadPeer::flap() {
  runtime_->schedule_after(std::chrono::milliseconds(300 + pick(4'000)), [this] {
    net_.cut(host_);
    flap();
  });
}

}  // namespace kitsune2::sim
