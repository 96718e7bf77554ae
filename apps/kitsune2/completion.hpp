// Shell completions, generated from the command line's own description.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace kitsune2::cli {

/// A script for "bash", "zsh" or "fish".
std::string completion_script(const CLI::App& root, const std::string& shell);

}  // namespace kitsune2::cli
