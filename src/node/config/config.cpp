// Reads, checks and prints configurations, their schema and their documentation, using the table of keys.
#include "kitsune2/config.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

#include "node/config/config_table.hpp"

namespace kitsune2 {
namespace {

using config_table::JsonText;
using config_table::Key;
using config_table::Section;
using config_table::sections;
using config_table::Slot;
using Json = nlohmann::ordered_json;

Error bad(std::string_view where, const std::string& what) {
  return make_error(Errc::invalid_config, std::string(where) + ": " + what);
}

std::string path_of(const Section& section, const Key& key) {
  return std::string(section.name) + '.' + std::string(key.name);
}

/// A user's text in a form fit for an error message.
std::string shown(std::string_view text) {
  std::string out(text.substr(0, 80));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return text.size() > 80 ? out + "…" : out;
}

/// Finds what a JSON library would accept silently (a duplicate key, unlimited nesting), and where a text is broken.
class StrictCheck final : public nlohmann::json_sax<Json> {
 public:
  std::string problem;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (levels_.back().keys.insert(name).second) {
      levels_.back().last = name;
      return true;
    }
    std::string path;
    for (const Level& level : levels_) {
      if (&level != &levels_.back() && !level.last.empty()) path += level.last + '.';
    }
    problem = shown(path + name) + ": is given twice";
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: …": keep the part that a user needs.
    std::string text = e.what();
    const auto at = text.find("parse error");
    if (at != std::string::npos) text = text.substr(at);
    problem = text.empty() ? "not JSON at byte " + std::to_string(position) : shown(text);
    return false;
  }

 private:
  struct Level {
    std::set<std::string> keys;
    std::string last;
  };
  bool open() {
    levels_.emplace_back();
    if (levels_.size() <= static_cast<std::size_t>(Config::kMaxJsonDepth)) return true;
    problem = "is nested deeper than " + std::to_string(Config::kMaxJsonDepth) + " levels";
    return false;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }
  std::vector<Level> levels_;
};

Result<Json> parse_strictly(std::string_view text) {
  if (text.size() > Config::kMaxJsonBytes)
    return make_error(Errc::invalid_config,
                      "the configuration is longer than " + std::to_string(Config::kMaxJsonBytes) + " bytes");
  StrictCheck check;
  if (!Json::sax_parse(text, &check)) return make_error(Errc::invalid_config, check.problem);
  Json out = Json::parse(text, nullptr, false);
  if (!out.is_object()) return make_error(Errc::invalid_config, "the configuration must be a JSON object");
  return out;
}

std::vector<std::string> dialects() {
  std::vector<std::string> out;
  for (const Dialect dialect : {Dialect::v0_2, Dialect::v0_4, Dialect::v0_5}) {
    out.emplace_back(to_string(dialect));
  }
  return out;
}
std::string dialects(std::string_view separator) {
  std::string out;
  for (const std::string& name : dialects()) out += (out.empty() ? "" : std::string(separator)) + name;
  return out;
}

std::string range_text(const Key& key) { return std::to_string(key.min) + ".." + std::to_string(key.max); }

/// What is in a section that the node does not use need only fit.
template <class T>
Result<T> take_number(const Json& value, const Key& key, const std::string& path, bool used) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    const std::uint64_t least = used ? key.min : 0;
    const std::uint64_t most = used ? key.max : std::numeric_limits<T>::max();
    if (number >= least && number <= most) return static_cast<T>(number);
  }
  if (value.is_number())
    return bad(path, "must be a whole number in " + range_text(key) + ", got " + shown(value.dump()));
  return bad(path, "must be a whole number in " + range_text(key) + ", got a " + std::string(value.type_name()));
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

Result<void> take(const Json& value, const Section& section, const Key& key, Config& config) {
  const std::string path = path_of(section, key);
  const bool used = section.is_used_for_sure(config);
  const auto expected = [&](const char* what) {
    return bad(path, std::string("must be ") + what + ", got a " + value.type_name());
  };
  return std::visit(Overloaded{[&](bool* slot) -> Result<void> {
                                 if (!value.is_boolean()) return expected("true or false");
                                 *slot = value.get<bool>();
                                 return {};
                               },
                               [&](std::uint32_t* slot) -> Result<void> {
                                 auto number = take_number<std::uint32_t>(value, key, path, used);
                                 if (!number) return number.error();
                                 *slot = *number;
                                 return {};
                               },
                               [&](std::uint64_t* slot) -> Result<void> {
                                 auto number = take_number<std::uint64_t>(value, key, path, used);
                                 if (!number) return number.error();
                                 *slot = *number;
                                 return {};
                               },
                               [&](std::optional<std::uint32_t>* slot) -> Result<void> {
                                 slot->reset();
                                 if (value.is_null()) return {};
                                 auto number = take_number<std::uint32_t>(value, key, path, used);
                                 if (!number) return number.error();
                                 *slot = *number;
                                 return {};
                               },
                               [&](std::string* slot) -> Result<void> {
                                 if (!value.is_string()) return expected("a string");
                                 *slot = value.get<std::string>();
                                 return {};
                               },
                               [&](std::optional<std::string>* slot) -> Result<void> {
                                 slot->reset();
                                 if (value.is_null()) return {};
                                 if (!value.is_string()) return expected("a string or null");
                                 *slot = value.get<std::string>();
                                 return {};
                               },
                               [&](JsonText slot) -> Result<void> {
                                 if (!value.is_object()) return expected("an object");
                                 *slot.text = value.dump();
                                 return {};
                               },
                               [&](std::optional<Dialect>* slot) -> Result<void> {
                                 slot->reset();
                                 if (value.is_null()) return {};
                                 if (!value.is_string()) return expected("a string or null");
                                 const auto named = dialect_of(value.get_ref<const std::string&>());
                                 if (!named) {
                                   return bad(path,
                                              "must be \"" + dialects("\" or \"") + "\", got " + shown(value.dump()));
                                 }
                                 *slot = named;
                                 return {};
                               }},
                    key.slot(config));
}

/// Checks that a key's value is the text of a JSON object, as strictly as the rest.
std::string check_object_text(const std::string& text) {
  auto parsed = parse_strictly(text);
  return parsed ? std::string{} : parsed.error().message;
}

Result<void> check(const Section& section, const Key& key, Config& config) {
  const std::string path = path_of(section, key);
  const auto in_range = [&](std::uint64_t number) -> Result<void> {
    const std::string fault = KeyRange{key.min, key.max}.fault(number);
    return fault.empty() ? Result<void>() : bad(path, fault);
  };
  const auto checked = [&](const std::string& text) -> Result<void> {
    const std::string problem = key.check != nullptr ? key.check(text) : std::string();
    return problem.empty() ? Result<void>() : bad(path, shown(problem));
  };
  return std::visit(
      Overloaded{
          [&](bool*) -> Result<void> { return {}; }, [&](std::uint32_t* slot) { return in_range(*slot); },
          [&](std::uint64_t* slot) { return in_range(*slot); },
          [&](std::optional<std::uint32_t>* slot) -> Result<void> {
            if (*slot) return in_range(**slot);
            return {};
          },
          [&](std::string* slot) { return checked(*slot); },
          [&](std::optional<std::string>* slot) -> Result<void> { return *slot ? checked(**slot) : Result<void>(); },
          [&](JsonText slot) -> Result<void> {
            const std::string problem = check_object_text(*slot.text);
            if (!problem.empty()) return bad(path, problem);
            return {};
          },
          [&](std::optional<Dialect>*) -> Result<void> { return {}; }},
      key.slot(config));
}

Result<void> check(const Section& section, Config& config) {
  for (const Key& key : section.keys) {
    if (auto fine = check(section, key, config); !fine) return fine;
  }
  const std::string problem = section.check != nullptr ? section.check(config) : std::string();
  if (!problem.empty()) return make_error(Errc::invalid_config, std::string(section.name) + '.' + problem);
  return {};
}

const Section& section_named(std::string_view name) {
  return *std::find_if(sections().begin(), sections().end(), [&](const Section& s) { return s.name == name; });
}

Json printed(const Slot& slot) {
  return std::visit(
      Overloaded{[](std::optional<std::uint32_t>* s) -> Json { return *s ? Json(**s) : Json(nullptr); },
                 [](std::optional<std::string>* s) -> Json { return *s ? Json(**s) : Json(nullptr); },
                 [](JsonText s) {
                   Json out = Json::parse(*s.text, nullptr, false);
                   return out.is_object() ? out : Json::object();
                 },
                 [](std::optional<Dialect>* s) -> Json { return *s ? Json(to_string(**s)) : Json(nullptr); },
                 [](auto* s) -> Json { return *s; }},
      slot);
}

std::string unknown_key(std::string_view name, std::span<const Key> keys) {
  std::vector<std::string_view> names;
  for (const Key& key : keys) names.push_back(key.name);
  return "is not a key; did you mean \"" + std::string(config_table::nearest(name, names).name) + "\"?";
}

/// Checks the sections for which `is_used` is true, and the application's.
Result<void> validate_sections(Config config, bool (Section::*is_used)(const Config&) const) {
  for (const Section& section : sections()) {
    if (!(section.*is_used)(config)) continue;
    if (auto fine = check(section, config); !fine) return fine;
  }
  const std::string problem = check_object_text(config.application);
  if (!problem.empty()) return make_error(Errc::invalid_config, "application sections: " + problem);
  return {};
}

}  // namespace

Result<Config> Config::parse(std::string_view json) { return Config().overlaid(json); }

Result<Config> Config::load_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return make_error(Errc::io, path + ": cannot be read");
  std::string text(kMaxJsonBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return make_error(Errc::io, path + ": cannot be read");
  text.resize(static_cast<std::size_t>(file.gcount()));
  auto config = parse(text);
  if (!config) return config.error().context(path);
  return config;
}

Result<Config> Config::overlaid(std::string_view json) const {
  auto parsed = parse_strictly(json);
  if (!parsed) return parsed.error();
  Config out = *this;
  Json own = Json::parse(out.application, nullptr, false);
  if (!own.is_object()) own = Json::object();

  // Old names of keys that were given, with the path of the key that replaces each.
  std::vector<std::pair<std::string, std::string_view>> old_names;
  std::set<std::string> given;
  // First of all the dialect, which says what the node uses.
  if (const auto at = parsed->find("network"); at != parsed->end() && at->is_object()) {
    if (const auto name = at->find("dialect"); name != at->end()) {
      if (name->is_null()) out.network.dialect.reset();
      if (name->is_string()) {
        if (const auto named = dialect_of(name->get_ref<const std::string&>())) out.network.dialect = named;
      }
    }
  }
  for (const auto& [name, value] : parsed->items()) {
    const auto section =
        std::find_if(sections().begin(), sections().end(), [&name = name](const Section& s) { return s.name == name; });
    if (section == sections().end()) {
      std::vector<std::string_view> names;
      for (const Section& s : sections()) names.push_back(s.name);
      const auto near = config_table::nearest(name, names);
      if (near.edits <= 2)
        return bad(shown(name), "is not a section; did you mean \"" + std::string(near.name) + "\"?");
      own[name] = value;
      continue;
    }
    if (!value.is_object()) return bad(section->name, std::string("must be an object, got a ") + value.type_name());
    for (const auto& [key_name, key_value] : value.items()) {
      const auto key = std::find_if(section->keys.begin(), section->keys.end(),
                                    [&key_name = key_name](const Key& k) { return k.name == key_name; });
      if (key == section->keys.end()) {
        return bad(std::string(section->name) + '.' + shown(key_name), unknown_key(key_name, section->keys));
      }
      auto taken = take(key_value, *section, *key, out);
      if (!taken) return taken.error();
      given.insert(path_of(*section, *key));
      if (!key->now.empty()) old_names.emplace_back(path_of(*section, *key), key->now);
    }
  }
  for (const auto& [old_name, now] : old_names) {
    if (given.contains(std::string(now))) {
      return bad(now, "is given twice, here and by its old name " + old_name + "; leave the old one out");
    }
  }
  out.application = own.dump();
  auto valid = validate_sections(out, &Section::is_used_for_sure);
  if (!valid) return valid.error();
  return out;
}

Result<void> config_table::validate(const CoreFetchConfig& config) {
  Config whole;
  whole.core_fetch = config;
  return check(section_named("coreFetch"), whole);
}

Result<void> Config::validate() const { return validate_sections(*this, &Section::is_used); }

std::string Config::to_json() const {
  Config copy = *this;
  Json out = Json::object();
  for (const Section& section : sections()) {
    Json& target = out[std::string(section.name)] = Json::object();
    for (const Key& key : section.keys) {
      if (key.now.empty()) target[std::string(key.name)] = printed(key.slot(copy));
    }
  }
  const Json own = Json::parse(application, nullptr, false);
  if (own.is_object()) {
    for (const auto& [name, value] : own.items()) {
      if (!out.contains(name)) out[name] = value;
    }
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

std::string Config::json_schema() {
  Config defaults;
  Json properties = Json::object();
  for (const Section& section : sections()) {
    Json keys = Json::object();
    for (const Key& key : section.keys) {
      const Slot slot = key.slot(defaults);
      Json entry = Json::object();
      const auto number = [&] {
        entry["minimum"] = key.min;
        entry["maximum"] = key.max;
      };
      std::visit(
          Overloaded{[&](bool*) { entry["type"] = "boolean"; },
                     [&](std::uint32_t*) {
                       entry["type"] = "integer";
                       number();
                     },
                     [&](std::uint64_t*) {
                       entry["type"] = "integer";
                       number();
                     },
                     [&](std::optional<std::uint32_t>*) {
                       entry["type"] = Json::array({"integer", "null"});
                       number();
                     },
                     [&](std::string*) { entry["type"] = "string"; }, [&](JsonText) { entry["type"] = "object"; },
                     [&](std::optional<std::string>*) {
                       entry["type"] = Json::array({"string", "null"});
                     },
                     [&](std::optional<Dialect>*) {
                       entry["enum"] = Json(dialects());
                       entry["enum"].push_back(nullptr);
                     }},
          slot);
      entry["default"] = printed(slot);
      entry["description"] = std::string(key.doc);
      if (!key.now.empty()) entry["deprecated"] = true;
      keys[std::string(key.name)] = std::move(entry);
    }
    Json entry = Json::object();
    entry["type"] = "object";
    entry["description"] = std::string(section.doc);
    entry["properties"] = std::move(keys);
    entry["additionalProperties"] = false;
    properties[std::string(section.name)] = std::move(entry);
  }
  Json out = Json::object();
  out["$schema"] = "https://json-schema.org/draft/2020-12/schema";
  out["title"] = "kitsune2 configuration";
  out["type"] = "object";
  out["properties"] = std::move(properties);
  out["additionalProperties"] = true;
  return out.dump(2) + '\n';
}

std::string Config::reference_markdown() {
  Config defaults;
  std::ostringstream out;
  for (const Section& section : sections()) {
    out << "## `" << section.name << "`\n" << section.doc << "\n\n";
    out << "| key | default | range | " << section.version << " | at run time | what |\n|---|---|---|---|---|---|\n";
    for (const Key& key : section.keys) {
      const Slot slot = key.slot(defaults);
      const std::string range = std::visit(
          Overloaded{[&](bool*) -> std::string { return "true, false"; },
                     [&](std::uint32_t*) { return range_text(key); }, [&](std::uint64_t*) { return range_text(key); },
                     [&](std::optional<std::uint32_t>*) { return range_text(key) + ", null"; },
                     [&](std::string*) -> std::string { return "text"; },
                     [&](std::optional<std::string>*) -> std::string { return "text, null"; },
                     [&](JsonText) -> std::string { return "object"; },
                     [&](std::optional<Dialect>*) -> std::string { return dialects(", ") + ", null"; }},
          slot);
      out << "| `" << key.name << "` | `" << printed(slot).dump() << "` | " << range << " | "
          << (!key.since.empty() ? key.since
              : key.reference    ? "yes"
                                 : "ours")
          << " | " << (key.at_run_time ? "yes" : "no") << " | " << key.doc << " |\n";
    }
    out << '\n';
  }
  return out.str();
}

// ------------------------------------------------------------------------------------------------- RuntimeConfig

struct RuntimeConfig::Subscriptions {
  struct Entry {
    const Section* section;
    const Key* key;  ///< null: any key of the section
    std::function<void(const Config&)> callback;
  };
  std::map<std::uint64_t, Entry> entries;
  std::uint64_t next = 1;
};

namespace {
/// Ends a subscription; may outlive the configuration. A template, because Subscriptions is private.
template <class Subscriptions>
class SubscriptionToken {
 public:
  SubscriptionToken(std::uint64_t number, std::weak_ptr<Subscriptions> all) : number_(number), all_(std::move(all)) {}
  ~SubscriptionToken() {
    if (auto hold = all_.lock()) hold->entries.erase(number_);
  }
  SubscriptionToken(const SubscriptionToken&) = delete;
  SubscriptionToken& operator=(const SubscriptionToken&) = delete;

 private:
  std::uint64_t number_;
  std::weak_ptr<Subscriptions> all_;
};
}  // namespace

RuntimeConfig::RuntimeConfig(Config initial)
    : current_(std::move(initial)), subscriptions_(std::make_shared<Subscriptions>()) {}
RuntimeConfig::~RuntimeConfig() = default;

Result<void> RuntimeConfig::update(std::string_view json) {
  auto next = current_.overlaid(json);
  if (!next) return next.error();
  std::set<const Key*> changed;
  for (const Section& section : sections()) {
    for (const Key& key : section.keys) {
      if (printed(key.slot(current_)) == printed(key.slot(*next))) continue;
      if (!key.at_run_time) return bad(path_of(section, key), "cannot change while the node runs");
      changed.insert(&key);
    }
  }
  current_ = std::move(*next);
  // By number, because a callback may subscribe or drop a subscription.
  std::vector<std::uint64_t> due;
  for (const auto& [number, entry] : subscriptions_->entries) {
    const bool hit = entry.key != nullptr ? changed.contains(entry.key)
                                          : std::any_of(entry.section->keys.begin(), entry.section->keys.end(),
                                                        [&](const Key& key) { return changed.contains(&key); });
    if (hit) due.push_back(number);
  }
  for (const std::uint64_t number : due) {
    const auto entry = subscriptions_->entries.find(number);
    if (entry == subscriptions_->entries.end()) continue;
    const auto callback = entry->second.callback;
    callback(current_);
  }
  return {};
}

std::shared_ptr<void> RuntimeConfig::on_update(std::string_view key, std::function<void(const Config&)> callback) {
  for (const Section& section : sections()) {
    Subscriptions::Entry entry{&section, nullptr, {}};
    bool found = section.name == key &&
                 std::any_of(section.keys.begin(), section.keys.end(), [](const Key& k) { return k.at_run_time; });
    for (const Key& k : section.keys) {
      if (!k.at_run_time || path_of(section, k) != key) continue;
      entry.key = &k;
      found = true;
    }
    if (!found) continue;
    callback(current_);
    entry.callback = std::move(callback);
    const std::uint64_t number = subscriptions_->next++;
    subscriptions_->entries.emplace(number, std::move(entry));
    return std::make_shared<SubscriptionToken<Subscriptions>>(number, subscriptions_);
  }
  return nullptr;
}

}  // namespace kitsune2
