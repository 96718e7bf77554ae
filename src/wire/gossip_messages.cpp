// Reads and writes the messages of the module "k2gossip".
#include "wire/gossip_messages.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "wire/k2proto.hpp"

namespace kitsune2::wire {

namespace {

/// Fields of ours: docs/protocol-gossip.md, "Our own nodes".
constexpr std::uint32_t kAbilitiesField = 20'000;
constexpr std::uint32_t kMoreOpsField = 20'001;
constexpr std::uint32_t kDiscDiffersField = 20'002;

// ---- the fields of each message, once, in the order of their numbers
//
// A visitor is shown each field with its number. The writing one writes all of them. The reading one takes the field
// that has arrived; at the end it checks that all required fields have arrived, and that lists that belong together
// have the same length. `V::Ref` makes a message const for the writing one.

template <class V>
void fields(V& v, typename V::template Ref<AcceptResponse> m) {
  v.ids(1, m.missing_agents);
  v.texts(2, m.provided_agents);
  v.ids(3, m.new_ops);
  v.time(4, m.updated_new_since);
}
template <class V>
void fields(V& v, typename V::template Ref<SnapshotMinimal> m) {
  v.time(1, m.disc_boundary);
  v.hash(2, m.disc_top_hash);
  v.hashes(3, m.ring_top_hashes);
}
template <class V>
void fields(V& v, typename V::template Ref<SnapshotDiscSectors> m) {
  v.time(1, m.disc_boundary);
  v.numbers(2, m.disc_sectors);
  v.hashes(3, m.disc_sector_hashes);
}
template <class V>
void fields(V& v, typename V::template Ref<DiscSliceHashes> m) {
  v.numbers(1, m.slice_indices);
  v.hashes(2, m.hashes);
  v.same_length(m.slice_indices.size(), m.hashes.size(), "DiscSliceHashes");
}
template <class V>
void fields(V& v, typename V::template Ref<SnapshotDiscSectorDetails> m) {
  v.time(1, m.disc_boundary);
  v.numbers(2, m.sector_indices);
  v.messages(3, m.disc_slice_hashes);
}
template <class V>
void fields(V& v, typename V::template Ref<RingSectorHashes> m) {
  v.numbers(1, m.sector_indices);
  v.hashes(2, m.hashes);
  v.same_length(m.sector_indices.size(), m.hashes.size(), "RingSectorHashes");
}
template <class V>
void fields(V& v, typename V::template Ref<SnapshotRingSectorDetails> m) {
  v.time(1, m.disc_boundary);
  v.numbers(2, m.ring_indices);
  v.messages(3, m.ring_sector_hashes);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipInitiate> m) {
  v.session(1, m.session_id);
  v.ids(10, m.participating_agents);
  v.arc_set(11, m.arc_set);
  v.number(12, m.tie_breaker);
  v.time(20, m.new_since);
  v.number(21, m.max_op_data_bytes);
  v.op_count(22, m.dht_op_count);
  v.number(kAbilitiesField, m.abilities);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipAccept> m) {
  v.session(1, m.session_id);
  v.ids(10, m.participating_agents);
  v.arc_set(11, m.arc_set);
  v.ids(12, m.missing_agents);
  v.time(20, m.new_since);
  v.number(21, m.max_op_data_bytes);
  v.ids(22, m.new_ops);
  v.time(23, m.updated_new_since);
  v.op_count(24, m.dht_op_count);
  v.optional_message(30, m.snapshot);
  v.number(kAbilitiesField, m.abilities);
  v.boolean(kMoreOpsField, m.more_ops);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipNoDiff> m) {
  v.session(1, m.session_id);
  v.message(2, m.accept_response, "accept_response");
  v.boolean(10, m.cannot_compare);
  v.boolean(kMoreOpsField, m.more_ops);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipDiscSectorsDiff> m) {
  v.session(1, m.session_id);
  v.message(2, m.accept_response, "accept_response");
  v.message(10, m.snapshot, "snapshot");
  v.same_length(m.snapshot.disc_sectors.size(), m.snapshot.disc_sector_hashes.size(), "SnapshotDiscSectorsMessage");
}
template <class V>
void fields(V& v, typename V::template Ref<GossipDiscSectorDetailsDiff> m) {
  v.session(1, m.session_id);
  v.texts(10, m.provided_agents);
  v.message(20, m.snapshot, "snapshot");
  v.same_length(m.snapshot.sector_indices.size(), m.snapshot.disc_slice_hashes.size(),
                "SnapshotDiscSectorDetailsMessage");
}
template <class V>
void fields(V& v, typename V::template Ref<GossipDiscSectorDetailsDiffResponse> m) {
  v.session(1, m.session_id);
  v.ids(10, m.missing_ids);
  v.message(20, m.snapshot, "snapshot");
  v.same_length(m.snapshot.sector_indices.size(), m.snapshot.disc_slice_hashes.size(),
                "SnapshotDiscSectorDetailsMessage");
}
template <class V>
void fields(V& v, typename V::template Ref<GossipRingSectorDetailsDiff> m) {
  v.session(1, m.session_id);
  v.message(10, m.accept_response, "accept_response");
  v.message(20, m.snapshot, "snapshot");
  v.same_length(m.snapshot.ring_indices.size(), m.snapshot.ring_sector_hashes.size(),
                "SnapshotRingSectorDetailsMessage");
  v.boolean(kDiscDiffersField, m.disc_differs);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipRingSectorDetailsDiffResponse> m) {
  v.session(1, m.session_id);
  v.ids(10, m.missing_ids);
  v.message(20, m.snapshot, "snapshot");
  v.same_length(m.snapshot.ring_indices.size(), m.snapshot.ring_sector_hashes.size(),
                "SnapshotRingSectorDetailsMessage");
}
template <class V>
void fields(V& v, typename V::template Ref<GossipHashes> m) {
  v.session(1, m.session_id);
  v.ids(10, m.missing_ids);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipAgents> m) {
  v.session(1, m.session_id);
  v.texts(10, m.provided_agents);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipBusy> m) {
  v.session(1, m.session_id);
  v.number(kAbilitiesField, m.abilities);
}
template <class V>
void fields(V& v, typename V::template Ref<GossipTerminate> m) {
  v.session(1, m.session_id);
  v.text(2, m.reason);
}

/// The name of the message in errors.
template <class Message>
constexpr const char* kName = "";
template <>
constexpr const char* kName<AcceptResponse> = "AcceptResponseMessage";
template <>
constexpr const char* kName<SnapshotMinimal> = "SnapshotMinimalMessage";
template <>
constexpr const char* kName<SnapshotDiscSectors> = "SnapshotDiscSectorsMessage";
template <>
constexpr const char* kName<DiscSliceHashes> = "DiscSliceHashes";
template <>
constexpr const char* kName<SnapshotDiscSectorDetails> = "SnapshotDiscSectorDetailsMessage";
template <>
constexpr const char* kName<RingSectorHashes> = "RingSectorHashes";
template <>
constexpr const char* kName<SnapshotRingSectorDetails> = "SnapshotRingSectorDetailsMessage";
template <>
constexpr const char* kName<GossipInitiate> = "K2GossipInitiateMessage";
template <>
constexpr const char* kName<GossipAccept> = "K2GossipAcceptMessage";
template <>
constexpr const char* kName<GossipNoDiff> = "K2GossipNoDiffMessage";
template <>
constexpr const char* kName<GossipDiscSectorsDiff> = "K2GossipDiscSectorsDiffMessage";
template <>
constexpr const char* kName<GossipDiscSectorDetailsDiff> = "K2GossipDiscSectorDetailsDiffMessage";
template <>
constexpr const char* kName<GossipDiscSectorDetailsDiffResponse> = "K2GossipDiscSectorDetailsDiffResponseMessage";
template <>
constexpr const char* kName<GossipRingSectorDetailsDiff> = "K2GossipRingSectorDetailsDiffMessage";
template <>
constexpr const char* kName<GossipRingSectorDetailsDiffResponse> = "K2GossipRingSectorDetailsDiffResponseMessage";
template <>
constexpr const char* kName<GossipHashes> = "K2GossipHashesMessage";
template <>
constexpr const char* kName<GossipAgents> = "K2GossipAgentsMessage";
template <>
constexpr const char* kName<GossipBusy> = "K2GossipBusyMessage";
template <>
constexpr const char* kName<GossipTerminate> = "K2GossipTerminateMessage";

// ---- reading

/// Decodes one gossip message. All its lists share the budget of elements.
///
/// `read` merges a message into `out`, as protobuf requires: a message field that occurs twice is the merge of both; of
/// a number or byte string the last one counts.
class Decoder {
 public:
  Decoder(Dialect dialect, const Bytes& message, const WireLimits& limits)
      : dialect_(dialect), message_(message), limits_(limits), budget_(limits.max_items) {}

  bool ok() const { return !error_; }
  const Error& error() const { return *error_; }
  void fail(std::string text, Errc code = Errc::malformed) {
    if (!error_) error_ = Error(code, std::move(text));
  }

  template <class Message>
  void read(ByteView view, Message& out) {
    Field field{*this};
    walk(view, kName<Message>, [&](ProtoReader& r) {
      field.r = &r;
      fields(field, out);
      field.r = nullptr;
    });
    if (!error_) fields(field, out);
  }

 private:
  /// Takes the field at which the reader is, if it is the one being shown. Without a reader: checks.
  struct Field {
    template <class T>
    using Ref = T&;

    Decoder& d;
    ProtoReader* r = nullptr;
    std::uint32_t seen = 0;  ///< a bit for each number of a message field that has arrived
    std::optional<std::vector<std::uint32_t>> arc_words = {};

    /// The reader, if it is at this field.
    ProtoReader* at(std::uint32_t number) const { return r != nullptr && r->field() == number ? r : nullptr; }

    void session(std::uint32_t n, Bytes& out) {
      if (ProtoReader* reader = at(n)) out = slice_of(d.message_, d.bounded(*reader, 0, d.limits_.max_id_bytes));
    }
    void hash(std::uint32_t n, Bytes& out) { session(n, out); }
    void ids(std::uint32_t n, std::vector<Bytes>& out) {
      if (ProtoReader* reader = at(n)) d.item(*reader, out, 1, d.limits_.max_id_bytes);
    }
    void hashes(std::uint32_t n, std::vector<Bytes>& out) {
      if (ProtoReader* reader = at(n)) d.item(*reader, out, 0, d.limits_.max_id_bytes);
    }
    void texts(std::uint32_t n, std::vector<Bytes>& out) {
      if (ProtoReader* reader = at(n)) d.item(*reader, out, 0, d.limits_.max_text_bytes);
    }
    void text(std::uint32_t n, Bytes& out) {
      ProtoReader* reader = at(n);
      if (reader == nullptr) return;
      if (reader->bytes().size() > d.limits_.max_text_bytes) {
        reader->fail("a text over the limit", Errc::too_large);
      } else {
        out = slice_of(d.message_, as_bytes(reader->text()));
      }
    }
    void time(std::uint32_t n, Timestamp& out) {
      if (ProtoReader* reader = at(n)) out.micros = reader->int64();
    }
    void number(std::uint32_t n, std::uint32_t& out) {
      if (ProtoReader* reader = at(n)) out = reader->uint32();
    }
    void boolean(std::uint32_t n, bool& out) {
      if (ProtoReader* reader = at(n)) out = reader->boolean();
    }
    void op_count(std::uint32_t n, std::optional<std::uint64_t>& out) {
      if (ProtoReader* reader = at(n); reader != nullptr && gossip_tells_op_count(d.dialect_)) out = reader->varint();
    }
    template <class Number>
    void numbers(std::uint32_t n, std::vector<Number>& out) {
      if (ProtoReader* reader = at(n)) d.number_items(*reader, out);
    }
    void arc_set(std::uint32_t n, ArcSetWords& out) {
      if (r == nullptr) return check_arc_set(out);
      ProtoReader* reader = at(n);
      if (reader == nullptr) return;
      const ByteView view = reader->bytes();
      if (!reader->ok()) return;
      if (!arc_words) arc_words.emplace();
      d.walk(view, "ArcSetMessage", [&](ProtoReader& inner) {
        if (inner.field() == 1) d.number_items(inner, *arc_words);
      });
    }
    void check_arc_set(ArcSetWords& out) const {
      if (!arc_words) return d.fail("gossip: no arc_set");
      if (arc_words->size() != out.words.size()) {
        return d.fail("gossip: an arc_set of " + std::to_string(arc_words->size()) + " words, expected 16");
      }
      std::copy(arc_words->begin(), arc_words->end(), out.words.begin());
    }
    template <class T>
    void message(std::uint32_t n, T& out, const char* name) {
      if (r == nullptr && (seen >> n & 1U) == 0) d.fail(std::string("gossip: no ") + name);
      ProtoReader* reader = at(n);
      if (reader == nullptr) return;
      const ByteView view = reader->bytes();
      if (!reader->ok()) return;
      seen |= 1U << n;
      d.read(view, out);
    }
    template <class T>
    void optional_message(std::uint32_t n, std::optional<T>& out) {
      ProtoReader* reader = at(n);
      if (reader == nullptr) return;
      const ByteView view = reader->bytes();
      if (!reader->ok()) return;
      if (!out) out.emplace();
      d.read(view, *out);
    }
    template <class T>
    void messages(std::uint32_t n, std::vector<T>& out) {
      ProtoReader* reader = at(n);
      if (reader == nullptr) return;
      const ByteView view = reader->bytes();
      if (reader->ok() && d.spend(*reader)) d.read(view, out.emplace_back());
    }
    void same_length(std::size_t a, std::size_t b, const char* name) const {
      if (r != nullptr || a == b) return;
      d.fail(std::string(name) + ": " + std::to_string(a) + " indices but " + std::to_string(b) + " hashes");
    }
  };

  template <class F>
  void walk(ByteView view, const char* name, F on_field) {
    if (error_) return;
    ProtoReader reader(view);
    while (!error_ && reader.next()) on_field(reader);
    if (!error_ && !reader.ok()) error_ = reader.error(name);
  }

  bool spend(ProtoReader& r) {
    if (budget_ == 0) return r.fail("too many elements", Errc::too_large);
    --budget_;
    return true;
  }
  /// A byte string of `least` to `most` bytes.
  static ByteView bounded(ProtoReader& r, std::size_t least, std::size_t most) {
    const ByteView view = r.bytes();
    if (view.size() < least) r.fail("an id of 0 bytes");
    if (view.size() > most) r.fail("a byte string over the limit", Errc::too_large);
    return r.ok() ? view : ByteView{};
  }
  void item(ProtoReader& r, std::vector<Bytes>& out, std::size_t least, std::size_t most) {
    const ByteView view = bounded(r, least, most);
    if (r.ok() && spend(r)) out.push_back(slice_of(message_, view));
  }
  template <class Number>
  void number_items(ProtoReader& r, std::vector<Number>& out) {
    r.numbers([&](std::uint64_t value) {
      if (!spend(r)) return false;
      out.push_back(static_cast<Number>(value));
      return true;
    });
  }

  const Dialect dialect_;
  const Bytes& message_;
  const WireLimits& limits_;
  std::size_t budget_;
  std::optional<Error> error_;
};

template <class Message>
Result<GossipMessage> decode_as(Dialect dialect, const Bytes& message, const WireLimits& limits) {
  Decoder decoder(dialect, message, limits);
  Message out;
  decoder.read(message.view(), out);
  if (decoder.ok() && out.session_id.empty()) decoder.fail("gossip: no session_id");
  if (!decoder.ok()) return decoder.error();
  return GossipMessage(std::move(out));
}

using DecodeFunction = Result<GossipMessage> (*)(Dialect, const Bytes&, const WireLimits&);

template <std::size_t... I>
constexpr std::array<DecodeFunction, sizeof...(I)> decode_table(std::index_sequence<I...>) {
  return {&decode_as<std::variant_alternative_t<I, GossipMessage>>...};
}
constexpr auto kDecoders = decode_table(std::make_index_sequence<std::variant_size_v<GossipMessage>>{});

// ---- writing: run once to measure and once to write

template <class Sink>
struct Writer {
  template <class T>
  using Ref = const T&;

  Sink& s;

  void session(std::uint32_t n, const Bytes& value) { put_bytes(s, n, value); }
  void hash(std::uint32_t n, const Bytes& value) { put_bytes(s, n, value); }
  void text(std::uint32_t n, const Bytes& value) { put_bytes(s, n, value); }
  void ids(std::uint32_t n, const std::vector<Bytes>& values) { put_items(s, n, values); }
  void hashes(std::uint32_t n, const std::vector<Bytes>& values) { put_items(s, n, values); }
  void texts(std::uint32_t n, const std::vector<Bytes>& values) { put_items(s, n, values); }
  void time(std::uint32_t n, Timestamp value) { put_int64(s, n, value.micros); }
  void number(std::uint32_t n, std::uint32_t value) { put_number(s, n, value); }
  void boolean(std::uint32_t n, bool value) { put_number(s, n, value ? 1 : 0); }
  /// Written even if 0.
  void op_count(std::uint32_t n, const std::optional<std::uint64_t>& value) {
    if (!value) return;
    put_tag(s, n, WireType::varint);
    s.varint(*value);
  }
  template <class Number>
  void numbers(std::uint32_t n, const std::vector<Number>& values) {
    put_packed(s, n, values);
  }
  void arc_set(std::uint32_t n, const ArcSetWords& value) {
    put_message(s, n, [&](auto& inner) { put_packed(inner, 1, value.words); });
  }
  template <class T>
  void message(std::uint32_t n, const T& value, const char* /*name*/) {
    put_message(s, n, [&](auto& inner) { write(inner, value); });
  }
  template <class T>
  void optional_message(std::uint32_t n, const std::optional<T>& value) {
    if (value) message(n, *value, "");
  }
  template <class T>
  void messages(std::uint32_t n, const std::vector<T>& values) {
    for (const T& value : values) message(n, value, "");
  }
  void same_length(std::size_t, std::size_t, const char*) {}

  template <class Inner, class T>
  static void write(Inner& inner, const T& value) {
    Writer<Inner> writer{inner};
    fields(writer, value);
  }
};

}  // namespace

Result<GossipMessage> decode_gossip(Dialect dialect, const Bytes& data, const WireLimits& limits) {
  Result<TypedMessage> typed = decode_typed(data, "K2GossipMessage");
  if (!typed) return typed.error();
  const auto index = static_cast<std::size_t>(typed->type) - 1;
  if (typed->type < 1 || index >= kDecoders.size()) {
    return make_error(Errc::malformed, "K2GossipMessage: unknown type " + std::to_string(typed->type));
  }
  return kDecoders[index](dialect, typed->data, limits);
}

Bytes encode_gossip(const GossipMessage& message) {
  const auto body = [&](auto& sink) {
    std::visit([&](const auto& m) { Writer<std::remove_reference_t<decltype(sink)>>::write(sink, m); }, message);
  };
  SizeSink measure;
  body(measure);
  return build_typed(static_cast<std::int32_t>(type_of(message)), measure.size(), body);
}

}  // namespace kitsune2::wire
