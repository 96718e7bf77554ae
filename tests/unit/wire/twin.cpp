// The twin of our codec: libprotobuf, and the rules that ours adds.
#include "twin.hpp"

#include <map>
#include <optional>

namespace kitsune2::wire::test {

namespace {

/// Reads a varint of at most `bits` bits the slow way: all groups of 7 into a wide sum.
std::optional<std::uint64_t> varint(std::string_view bytes, std::size_t& at, unsigned bits) {
  unsigned __int128 sum = 0;
  for (unsigned group = 0; group < 10; ++group) {
    if (at == bytes.size()) return std::nullopt;
    const auto byte = static_cast<unsigned char>(bytes[at++]);
    sum += static_cast<unsigned __int128>(byte % 128) << (7 * group);
    if (byte < 128) {
      if (sum >> bits != 0 || group >= (bits + 6) / 7) return std::nullopt;
      return static_cast<std::uint64_t>(sum);
    }
  }
  return std::nullopt;
}

bool is_id_list(const std::string& name) {
  static const std::set<std::string> names{"op_ids", "participating_agents", "missing_agents", "new_ops",
                                           "missing_ids"};
  return names.contains(name);
}

/// The lists of indexes, by the list of hashes that belongs to each.
const std::map<std::string, std::string>& parallel_lists() {
  static const std::map<std::string, std::string> lists{
      {"kitsune2.gossip.SnapshotDiscSectorsMessage.disc_sectors", "disc_sector_hashes"},
      {"kitsune2.gossip.DiscSliceHashes.slice_indices", "hashes"},
      {"kitsune2.gossip.SnapshotDiscSectorDetailsMessage.sector_indices", "disc_slice_hashes"},
      {"kitsune2.gossip.RingSectorHashes.sector_indices", "hashes"},
      {"kitsune2.gossip.SnapshotRingSectorDetailsMessage.ring_indices", "ring_sector_hashes"}};
  return lists;
}

bool may_be_absent(const pb::FieldDescriptor& field) {
  return field.full_name() == "kitsune2.gossip.K2GossipAcceptMessage.snapshot";
}

}  // namespace

bool strictly_formed(std::string_view bytes, const pb::Descriptor& type) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto tag = varint(bytes, at, 32);
    if (!tag || *tag / 8 == 0) return false;
    const pb::FieldDescriptor* const field = type.FindFieldByNumber(static_cast<int>(*tag / 8));
    const bool wants_varint = field != nullptr && (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_STRING &&
                                                   field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE);
    switch (*tag % 8) {
      case 0:
        if (field != nullptr && !wants_varint) return false;
        if (!varint(bytes, at, 64)) return false;
        break;
      case 2: {
        const auto length = varint(bytes, at, 32);
        if (!length || bytes.size() - at < *length) return false;
        const std::string_view inner = bytes.substr(at, *length);
        at += *length;
        if (wants_varint && !field->is_repeated()) return false;
        if (wants_varint) {
          for (std::size_t i = 0; i < inner.size();) {
            if (!varint(inner, i, 64)) return false;
          }
        }
        if (field != nullptr && field->message_type() != nullptr && !strictly_formed(inner, *field->message_type())) {
          return false;
        }
        break;
      }
      case 1:
      case 5: {
        const std::size_t size = *tag % 8 == 1 ? 8 : 4;
        if (field != nullptr || bytes.size() - at < size) return false;
        at += size;
        break;
      }
      default:
        return false;
    }
  }
  return true;
}

bool has_valid_content(const pb::Message& message) {
  const pb::Reflection& reflection = *message.GetReflection();
  const pb::Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const pb::FieldDescriptor* const field = type.field(i);
    if (field->name() == "session_id" && reflection.GetString(message, field).empty()) return false;
    if (is_id_list(field->name())) {
      for (int n = 0; n < reflection.FieldSize(message, field); ++n) {
        const std::string id = reflection.GetRepeatedString(message, field, n);
        if (id.empty() || id.size() > 1024) return false;
      }
    }
    if (field->full_name() == "kitsune2.gossip.ArcSetMessage.value" && reflection.FieldSize(message, field) != 16) {
      return false;
    }
    const auto partner = parallel_lists().find(field->full_name());
    if (partner != parallel_lists().end() &&
        reflection.FieldSize(message, field) != reflection.FieldSize(message, type.FindFieldByName(partner->second))) {
      return false;
    }
    if (field->message_type() == nullptr) continue;
    if (field->is_repeated()) {
      for (int n = 0; n < reflection.FieldSize(message, field); ++n) {
        if (!has_valid_content(reflection.GetRepeatedMessage(message, field, n))) return false;
      }
    } else if (reflection.HasField(message, field)) {
      if (!has_valid_content(reflection.GetMessage(message, field))) return false;
    } else if (!may_be_absent(*field)) {
      return false;
    }
  }
  return true;
}

void fill(pb::Message& message, Random& random) {
  const pb::Reflection& reflection = *message.GetReflection();
  const pb::Descriptor& type = *message.GetDescriptor();
  std::map<std::string, int> counts;  // of lists that belong to an earlier one
  for (int i = 0; i < type.field_count(); ++i) {
    const pb::FieldDescriptor* const field = type.field(i);
    int count = 1;
    if (field->is_repeated()) {
      count = static_cast<int>(random.below(random.one_in(10) ? 200 : 5));
      if (const auto known = counts.find(field->name()); known != counts.end()) count = known->second;
      if (field->full_name() == "kitsune2.gossip.ArcSetMessage.value") count = 16;
      const auto partner = parallel_lists().find(field->full_name());
      if (partner != parallel_lists().end()) counts[partner->second] = count;
    } else if ((field->has_optional_keyword() && random.one_in(3)) ||
               (field->message_type() == nullptr && field->name() != "session_id" && random.one_in(5))) {
      continue;
    }
    for (int n = 0; n < count; ++n) {
      switch (field->cpp_type()) {
        case pb::FieldDescriptor::CPPTYPE_STRING: {
          const std::size_t least = field->name() == "session_id" || is_id_list(field->name()) ? 1 : 0;
          std::string value = random.bytes(least + random.below(random.one_in(20) ? 200 : 40));
          if (field->type() == pb::FieldDescriptor::TYPE_STRING) {
            for (char& c : value) c = static_cast<char>(c & 0x7F);
          }
          field->is_repeated() ? reflection.AddString(&message, field, value)
                               : reflection.SetString(&message, field, value);
          break;
        }
        case pb::FieldDescriptor::CPPTYPE_UINT32: {
          const auto value = static_cast<std::uint32_t>(random.number());
          field->is_repeated() ? reflection.AddUInt32(&message, field, value)
                               : reflection.SetUInt32(&message, field, value);
          break;
        }
        case pb::FieldDescriptor::CPPTYPE_UINT64:
          reflection.AddUInt64(&message, field, random.number());
          break;
        case pb::FieldDescriptor::CPPTYPE_INT64:
          reflection.SetInt64(&message, field, static_cast<std::int64_t>(random.number()));
          break;
        case pb::FieldDescriptor::CPPTYPE_BOOL:
          reflection.SetBool(&message, field, random.one_in(2));
          break;
        case pb::FieldDescriptor::CPPTYPE_ENUM:
          reflection.SetEnumValue(&message, field, static_cast<int>(random.below(17)));
          break;
        case pb::FieldDescriptor::CPPTYPE_MESSAGE:
          fill(field->is_repeated() ? *reflection.AddMessage(&message, field)
                                    : *reflection.MutableMessage(&message, field),
               random);
          break;
        default:
          break;
      }
    }
  }
}

std::unique_ptr<pb::Message> new_gossip(int type) {
  namespace g = kitsune2::gossip;
  switch (type) {
    case g::K2GossipMessage::INITIATE:
      return std::make_unique<g::K2GossipInitiateMessage>();
    case g::K2GossipMessage::ACCEPT:
      return std::make_unique<g::K2GossipAcceptMessage>();
    case g::K2GossipMessage::NO_DIFF:
      return std::make_unique<g::K2GossipNoDiffMessage>();
    case g::K2GossipMessage::DISC_SECTORS_DIFF:
      return std::make_unique<g::K2GossipDiscSectorsDiffMessage>();
    case g::K2GossipMessage::DISC_SECTOR_DETAILS_DIFF:
      return std::make_unique<g::K2GossipDiscSectorDetailsDiffMessage>();
    case g::K2GossipMessage::DISC_SECTOR_DETAILS_DIFF_RESPONSE:
      return std::make_unique<g::K2GossipDiscSectorDetailsDiffResponseMessage>();
    case g::K2GossipMessage::RING_SECTOR_DETAILS_DIFF:
      return std::make_unique<g::K2GossipRingSectorDetailsDiffMessage>();
    case g::K2GossipMessage::RING_SECTOR_DETAILS_DIFF_RESPONSE:
      return std::make_unique<g::K2GossipRingSectorDetailsDiffResponseMessage>();
    case g::K2GossipMessage::HASHES:
      return std::make_unique<g::K2GossipHashesMessage>();
    case g::K2GossipMessage::AGENTS:
      return std::make_unique<g::K2GossipAgentsMessage>();
    case g::K2GossipMessage::BUSY:
      return std::make_unique<g::K2GossipBusyMessage>();
    case g::K2GossipMessage::TERMINATE:
      return std::make_unique<g::K2GossipTerminateMessage>();
    default:
      return nullptr;
  }
}

namespace {

namespace g = kitsune2::gossip;

template <class Repeated>
void set_all(Repeated* out, const std::vector<Bytes>& values) {
  for (const Bytes& value : values) out->Add(value.str());
}
template <class Repeated, class Number>
void set_numbers(Repeated* out, const std::vector<Number>& values) {
  for (const Number value : values) out->Add(value);
}
void convert(const ArcSetWords& in, g::ArcSetMessage* out) {
  for (const std::uint32_t word : in.words) out->add_value(word);
}
void convert(const AcceptResponse& in, g::AcceptResponseMessage* out) {
  set_all(out->mutable_missing_agents(), in.missing_agents);
  set_all(out->mutable_provided_agents(), in.provided_agents);
  set_all(out->mutable_new_ops(), in.new_ops);
  out->set_updated_new_since(in.updated_new_since.micros);
}
void convert(const SnapshotDiscSectorDetails& in, g::SnapshotDiscSectorDetailsMessage* out) {
  out->set_disc_boundary(in.disc_boundary.micros);
  set_numbers(out->mutable_sector_indices(), in.sector_indices);
  for (const DiscSliceHashes& hashes : in.disc_slice_hashes) {
    auto* const item = out->add_disc_slice_hashes();
    set_numbers(item->mutable_slice_indices(), hashes.slice_indices);
    set_all(item->mutable_hashes(), hashes.hashes);
  }
}
void convert(const SnapshotRingSectorDetails& in, g::SnapshotRingSectorDetailsMessage* out) {
  out->set_disc_boundary(in.disc_boundary.micros);
  set_numbers(out->mutable_ring_indices(), in.ring_indices);
  for (const RingSectorHashes& hashes : in.ring_sector_hashes) {
    auto* const item = out->add_ring_sector_hashes();
    set_numbers(item->mutable_sector_indices(), hashes.sector_indices);
    set_all(item->mutable_hashes(), hashes.hashes);
  }
}

struct Convert {
  template <class Twin, class Ours>
  static std::unique_ptr<Twin> begin(const Ours& in) {
    auto out = std::make_unique<Twin>();
    out->set_session_id(in.session_id.str());
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipInitiate& in) const {
    auto out = begin<g::K2GossipInitiateMessage>(in);
    set_all(out->mutable_participating_agents(), in.participating_agents);
    convert(in.arc_set, out->mutable_arc_set());
    out->set_tie_breaker(in.tie_breaker);
    out->set_new_since(in.new_since.micros);
    out->set_abilities(in.abilities);
    out->set_max_op_data_bytes(in.max_op_data_bytes);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipAccept& in) const {
    auto out = begin<g::K2GossipAcceptMessage>(in);
    set_all(out->mutable_participating_agents(), in.participating_agents);
    convert(in.arc_set, out->mutable_arc_set());
    set_all(out->mutable_missing_agents(), in.missing_agents);
    out->set_new_since(in.new_since.micros);
    out->set_abilities(in.abilities);
    out->set_more_ops(in.more_ops);
    out->set_max_op_data_bytes(in.max_op_data_bytes);
    set_all(out->mutable_new_ops(), in.new_ops);
    out->set_updated_new_since(in.updated_new_since.micros);
    if (in.snapshot) {
      auto* const snapshot = out->mutable_snapshot();
      snapshot->set_disc_boundary(in.snapshot->disc_boundary.micros);
      snapshot->set_disc_top_hash(in.snapshot->disc_top_hash.str());
      set_all(snapshot->mutable_ring_top_hashes(), in.snapshot->ring_top_hashes);
    }
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipNoDiff& in) const {
    auto out = begin<g::K2GossipNoDiffMessage>(in);
    convert(in.accept_response, out->mutable_accept_response());
    out->set_cannot_compare(in.cannot_compare);
    out->set_more_ops(in.more_ops);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipDiscSectorsDiff& in) const {
    auto out = begin<g::K2GossipDiscSectorsDiffMessage>(in);
    convert(in.accept_response, out->mutable_accept_response());
    auto* const snapshot = out->mutable_snapshot();
    snapshot->set_disc_boundary(in.snapshot.disc_boundary.micros);
    set_numbers(snapshot->mutable_disc_sectors(), in.snapshot.disc_sectors);
    set_all(snapshot->mutable_disc_sector_hashes(), in.snapshot.disc_sector_hashes);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipDiscSectorDetailsDiff& in) const {
    auto out = begin<g::K2GossipDiscSectorDetailsDiffMessage>(in);
    set_all(out->mutable_provided_agents(), in.provided_agents);
    convert(in.snapshot, out->mutable_snapshot());
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipDiscSectorDetailsDiffResponse& in) const {
    auto out = begin<g::K2GossipDiscSectorDetailsDiffResponseMessage>(in);
    set_all(out->mutable_missing_ids(), in.missing_ids);
    convert(in.snapshot, out->mutable_snapshot());
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipRingSectorDetailsDiff& in) const {
    auto out = begin<g::K2GossipRingSectorDetailsDiffMessage>(in);
    convert(in.accept_response, out->mutable_accept_response());
    convert(in.snapshot, out->mutable_snapshot());
    out->set_disc_differs(in.disc_differs);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipRingSectorDetailsDiffResponse& in) const {
    auto out = begin<g::K2GossipRingSectorDetailsDiffResponseMessage>(in);
    set_all(out->mutable_missing_ids(), in.missing_ids);
    convert(in.snapshot, out->mutable_snapshot());
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipHashes& in) const {
    auto out = begin<g::K2GossipHashesMessage>(in);
    set_all(out->mutable_missing_ids(), in.missing_ids);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipAgents& in) const {
    auto out = begin<g::K2GossipAgentsMessage>(in);
    set_all(out->mutable_provided_agents(), in.provided_agents);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipBusy& in) const {
    auto out = begin<g::K2GossipBusyMessage>(in);
    out->set_abilities(in.abilities);
    return out;
  }
  std::unique_ptr<pb::Message> operator()(const GossipTerminate& in) const {
    auto out = begin<g::K2GossipTerminateMessage>(in);
    out->set_reason(in.reason.str());
    return out;
  }
};

}  // namespace

std::unique_ptr<pb::Message> to_twin(const GossipMessage& message) { return std::visit(Convert{}, message); }

}  // namespace kitsune2::wire::test
