// The common part of this library's builders.
#pragma once

#include <memory>

#include "kitsune2/builder.hpp"

namespace kitsune2 {

/// The modules that are the same in a real node and in a test: report, block list, local agents, fetch, publish.
/// Transport, bootstrap, stores and gossip are left empty for the builder that starts from this one.
Builder base_builder();

/// Lets `builder` keep ops, peers and notes in memory. Null policy: SHA-256.
void use_memory_stores(Builder& builder, std::shared_ptr<const OpPolicy> policy);

/// The first empty slot of `builder`; null if there is none.
const char* empty_slot(const Builder& builder);

/// Returns `builder`, which a function of this library has filled. An empty slot is a bug (abort).
Builder complete(Builder builder);

}  // namespace kitsune2
