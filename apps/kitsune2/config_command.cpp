// `kitsune2 config`: checks and prints the configuration.
#include "cli.hpp"

namespace kitsune2::cli {

int run_config(const Common& common, const ConfigArgs& args) {
  Output out(common);
  if (args.schema) {
    std::fputs((Config::json_schema() + '\n').c_str(), stdout);
    return kOk;
  }
  if (!args.check.empty()) {
    auto config = Config::load_file(args.check);
    if (config) {
      if (auto valid = config->validate(); !valid) config = valid.error().context(args.check);
    }
    if (!config) {
      // For this command an unreadable file is wrong usage as well.
      out.error(config.error());
      return kUsage;
    }
    out.result(args.check + ": valid");
    out.event(JsonLine("config").add("file", args.check).add_bool("valid", true));
    return kOk;
  }
  std::fputs((Config::defaults().to_json() + '\n').c_str(), stdout);
  return kOk;
}

}  // namespace kitsune2::cli
