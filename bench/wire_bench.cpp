// The cost of the codec per id and per op: 1,000 ids of 32 bytes, 1,000 ops of 64 bytes, 100 ops of 1 MiB.
// libprotobuf would copy each payload at every level; the rows to compare with are "memcpy of the same bytes".
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "kitsune2/agent.hpp"
#include "wire/fetch_messages.hpp"
#include "wire/k2proto.hpp"
#include "wire/publish_messages.hpp"

namespace kitsune2::wire {
namespace {

const SpaceId kSpace = SpaceId::from_text("a space id of thirty-two bytes..");

std::vector<OpId> make_ids(std::size_t count) {
  std::vector<OpId> out;
  for (std::size_t i = 0; i < count; ++i) {
    std::string id = "id of an op " + std::to_string(i);
    id.resize(32, '.');
    out.emplace_back(as_bytes(id));
  }
  return out;
}

std::vector<MetaOp> make_ops(std::size_t count, std::size_t size) {
  const std::vector<OpId> ids = make_ids(count);
  std::vector<MetaOp> out;
  for (const OpId& id : ids) out.push_back({id, Bytes(std::string(size, 'x'))});
  return out;
}

/// Time per id or op as a counter, so that rows with different counts can be compared.
void per_item(benchmark::State& state, std::size_t items, std::size_t bytes) {
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * items));
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * bytes));
  state.counters["per_item"] = benchmark::Counter(
      static_cast<double>(items), benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void encode_request(benchmark::State& state) {
  const std::vector<OpId> ids = make_ids(static_cast<std::size_t>(state.range(0)));
  std::size_t bytes = 0;
  for (auto _ : state) {
    const ByteChain message = encode_module(kSpace, kFetchModule, encode_fetch_request(ids));
    bytes = message.size();
    benchmark::DoNotOptimize(message.pieces().data());
  }
  per_item(state, ids.size(), bytes);
}
BENCHMARK(encode_request)->Arg(1)->Arg(1000);

/// From the received message to the ids in a vector.
void decode_request(benchmark::State& state) {
  const std::vector<OpId> ids = make_ids(static_cast<std::size_t>(state.range(0)));
  const Bytes message = encode_module(kSpace, kFetchModule, encode_fetch_request(ids)).joined();
  for (auto _ : state) {
    const Result<K2ProtoView> outer = decode_k2proto(message);
    const Result<FetchMessage> inner = decode_fetch(Dialect::v0_2, outer->data);
    const std::vector<OpId> out = inner->op_ids.ids<OpId>();
    benchmark::DoNotOptimize(out.data());
  }
  per_item(state, ids.size(), message.size());
}
BENCHMARK(decode_request)->Arg(1)->Arg(1000);

void encode_response(benchmark::State& state) {
  const std::vector<MetaOp> ops =
      make_ops(static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  std::size_t bytes = 0;
  for (auto _ : state) {
    const ByteChain message = encode_module(kSpace, kFetchModule, encode_fetch_response(Dialect::v0_2, ops));
    bytes = message.size();
    benchmark::DoNotOptimize(message.pieces().data());
  }
  per_item(state, ops.size(), bytes);
}
BENCHMARK(encode_response)->Args({1, 64})->Args({1000, 64})->Args({1000, 1024})->Args({100, 1 << 20});

/// From the received message to the ops as slices of it.
void decode_response(benchmark::State& state) {
  const std::vector<MetaOp> ops =
      make_ops(static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  const Bytes message = encode_module(kSpace, kFetchModule, encode_fetch_response(Dialect::v0_2, ops)).joined();
  for (auto _ : state) {
    const Result<K2ProtoView> outer = decode_k2proto(message);
    const Result<FetchMessage> inner = decode_fetch(Dialect::v0_2, outer->data);
    const std::vector<Bytes> out = inner->ops.slices();
    benchmark::DoNotOptimize(out.data());
  }
  per_item(state, ops.size(), message.size());
}
BENCHMARK(decode_response)->Args({1, 64})->Args({1000, 64})->Args({1000, 1024})->Args({100, 1 << 20});

/// The same walk without making slices: views only.
void walk_response(benchmark::State& state) {
  const std::vector<MetaOp> ops =
      make_ops(static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  const Bytes message = encode_module(kSpace, kFetchModule, encode_fetch_response(Dialect::v0_2, ops)).joined();
  for (auto _ : state) {
    const Result<K2ProtoView> outer = decode_k2proto(message);
    const Result<FetchMessage> inner = decode_fetch(Dialect::v0_2, outer->data);
    std::size_t total = 0;
    for (const ByteView op : inner->ops) total += op.size();
    benchmark::DoNotOptimize(total);
  }
  per_item(state, ops.size(), message.size());
}
BENCHMARK(walk_response)->Args({1000, 64});

/// The lower bound: copying the payloads of an encoded response once.
void copy_payloads(benchmark::State& state) {
  const std::vector<MetaOp> ops =
      make_ops(static_cast<std::size_t>(state.range(0)), static_cast<std::size_t>(state.range(1)));
  const std::size_t total = ops.size() * static_cast<std::size_t>(state.range(1));
  for (auto _ : state) {
    std::shared_ptr<std::uint8_t[]> out = std::make_shared_for_overwrite<std::uint8_t[]>(total);
    std::uint8_t* to = out.get();
    for (const MetaOp& op : ops) {
      std::memcpy(to, op.op_data.data(), op.op_data.size());
      to += op.op_data.size();
    }
    benchmark::DoNotOptimize(out.get());
    benchmark::ClobberMemory();
  }
  per_item(state, ops.size(), total);
}
BENCHMARK(copy_payloads)->Args({1000, 64})->Args({1000, 1024})->Args({100, 1 << 20});

void agent_info_sign(benchmark::State& state) {
  const auto agent = Ed25519LocalAgent::generate();
  AgentInfo info;
  info.agent = agent->agent();
  info.space = kSpace;
  info.url = *Url::parse("ws://relay.example:443/8Mn4N3V7aLTbvti6U_8_3qIeJ7IQ89OvZRR4ku0IUAA");
  info.storage_arc = DhtArc::full();
  for (auto _ : state) benchmark::DoNotOptimize(AgentInfoSigned::sign(*agent, info));
  per_item(state, 1, 0);
}
BENCHMARK(agent_info_sign);

void agent_info_decode(benchmark::State& state) {
  const auto agent = Ed25519LocalAgent::generate();
  AgentInfo info;
  info.agent = agent->agent();
  info.space = kSpace;
  info.url = *Url::parse("ws://relay.example:443/8Mn4N3V7aLTbvti6U_8_3qIeJ7IQ89OvZRR4ku0IUAA");
  const Result<AgentInfoPtr> made = AgentInfoSigned::sign(*agent, info);
  for (auto _ : state) benchmark::DoNotOptimize(AgentInfoSigned::decode((*made)->encode()));
  per_item(state, 1, 0);
}
BENCHMARK(agent_info_decode);

}  // namespace
}  // namespace kitsune2::wire

BENCHMARK_MAIN();
