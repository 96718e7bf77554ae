// What the builders of this library have in common.
#pragma once

#include <memory>

#include "kitsune2/builder.hpp"

namespace kitsune2 {

/// The modules that are the same in a real node and in a test: report, block list, local agents, fetch, publish.
/// Transport, bootstrap, stores and gossip are left empty for the builder that begins with this one.
Builder base_builder();

/// Keeps the ops, peers and notes of `builder` in memory. A null policy: SHA-256.
void use_memory_stores(Builder& builder, std::shared_ptr<const OpPolicy> policy);

/// The first slot of `builder` that is empty; null: none is.
const char* empty_slot(const Builder& builder);

/// `builder`, which a function of this library has filled. A slot that it forgot is a bug (abort).
Builder complete(Builder builder);

}  // namespace kitsune2
