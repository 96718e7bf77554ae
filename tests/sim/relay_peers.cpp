// Peers behind the relay that speak the protocol and misbehave.
#include "sim/relay_peers.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "kitsune2/testing/builders.hpp"
#include "sim/sim_transport.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::sim {

class BadPeer::Handler final : public ModuleMessageHandler {
 public:
  explicit Handler(BadPeer& owner) : owner_(owner) {}
  Result<void> recv_module_msg(const Url& peer, const SpaceId&, Bytes data) override {
    const auto message = wire::decode_fetch(owner_.dialect_, data);
    if (message && message->type == wire::FetchMessageType::request) {
      owner_.requested(peer, message->op_ids.ids<OpId>());
    }
    return {};
  }

 private:
  BadPeer& owner_;
};

BadPeer::BadPeer(testing::SimWorld& world, SimNet& net, SimPaths* paths, const Config& config, BadKind kind,
                 const std::vector<MetaOp>& ops)
    : world_(world),
      net_(net),
      dialect_(config.network.spoken()),
      kind_(kind),
      ops_(ops),
      host_(net.add_host("bad" + std::to_string(static_cast<int>(kind)))),
      runtime_(world.make_runtime()) {
  net_.up(host_, *runtime_);
  auto own = config;
  own.tx5_transport.message_size_max = own.iroh_transport.max_frame_bytes = 16U << 20;
  own.tx5_transport.max_queue_bytes_per_peer = own.iroh_transport.max_queue_bytes_per_peer = 64U << 20;
  auto backend = make_backend(*runtime_, {net_, paths, host_}, own);
  EXPECT_TRUE(backend.has_value());
  transport_ = make_transport(*runtime_, std::move(*backend), nullptr, dialect_);
  EXPECT_TRUE(transport_->register_module_handler(kSimSpace, kFetchModule, std::make_shared<Handler>(*this)));
  if (kind_ == BadKind::flapping) flap();
}

BadPeer::~BadPeer() {
  runtime_->crash();
  net_.down(host_, false);
  transport_.reset();
}

void BadPeer::offer(const Url& to, const std::vector<OpId>& ids) {
  transport_->send_module(to, kSimSpace, kPublishModule, wire::encode_publish_ops(dialect_, ids),
                          [](const Result<void>&) {});
}

void BadPeer::answer(const Url& to, const std::vector<MetaOp>& ops) {
  transport_->send_module(to, kSimSpace, kFetchModule, wire::encode_fetch_response(dialect_, ops),
                          [](const Result<void>&) {});
}

std::vector<MetaOp> BadPeer::held(const std::vector<OpId>& ids, std::size_t one_in) {
  std::vector<MetaOp> out;
  for (const auto& id : ids) {
    for (const auto& op : ops_) {
      if (op.op_id == id && pick(one_in) == 0) out.push_back(op);
    }
  }
  return out;
}

void BadPeer::requested(const Url& from, const std::vector<OpId>& ids) {
  std::vector<MetaOp> lies;
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
        lies.push_back({ids[i], testing::make_op(1'000'000 + pick(1'000), 40)});
      if (pick(4) == 0) lies.push_back(ops_[pick(ops_.size())]);  // true, and perhaps not requested
      return answer(from, lies);
    case BadKind::endless:
      return go_on(from, 60);
    case BadKind::oversized:
      if (pick(2) == 0) {
        lies.push_back({ids.front(), testing::make_op(3'000'000, 150'000)});  // not an op by the policy
      } else {
        lies.assign(3, {ids.front(), testing::make_op(3'000'000, 1'000'000)});  // not a message by the transport
      }
      return answer(from, lies);
  }
}

void BadPeer::go_on(const Url& to, int left) {
  if (left == 0) return;
  std::vector<MetaOp> lies;
  for (int i = 0; i < 5; ++i) {
    const auto data = testing::make_op(2'000'000 + pick(100'000), 400);
    lies.push_back({OpId(data.slice(0, 32)), data});
  }
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
