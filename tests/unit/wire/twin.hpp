// The twin of our codec: libprotobuf's generated classes, plus the rules that our codec adds, written a second time.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <set>
#include <string>
#include <string_view>

#include "fetch.pb.h"
#include "gossip.pb.h"
#include "k2proto.pb.h"
#include "publish.pb.h"
#include "support.hpp"
#include "wire/gossip_messages.hpp"

namespace kitsune2::wire::test {

namespace pb = google::protobuf;

/// What our reader refuses and libprotobuf accepts (docs/protocol-wire.md, "Stricter than protobuf"): numbers over 64
/// bits, tags and lengths over 32, groups, and known fields with a wrong wire type. Uses the message's description.
bool strictly_formed(std::string_view bytes, const pb::Descriptor& type);

/// The rules on content: ids not empty, required parts, parallel lists, 16 words. By field names.
bool has_valid_content(const pb::Message& message);

/// Fills all fields with random content that obeys these rules.
void fill(pb::Message& message, Random& random);

/// A fresh inner message of a gossip type, 1 to 12.
std::unique_ptr<pb::Message> new_gossip(int type);

/// Our struct as an object of the twin's class.
std::unique_ptr<pb::Message> to_twin(const GossipMessage& message);

}  // namespace kitsune2::wire::test
