// Writes shell completions from the command line's own description.
#include "completion.hpp"

#include <CLI/CLI.hpp>
#include <sstream>

namespace kitsune2::cli {

namespace {

struct Flag {
  std::string name;  ///< "--data"
  std::string help;
  std::string kind;  ///< "": no value; else its type name
  std::vector<std::string> values;
};
struct Command {
  std::string name, help;
  std::vector<Flag> flags;
};

std::string one_line(std::string text) {
  for (auto& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

std::vector<std::string> values_of(const std::string& name) {
  if (name == "--log-level") return {"trace", "debug", "info", "warn", "error", "off"};
  return {};
}

std::vector<Flag> flags_of(const CLI::App& app) {
  std::vector<Flag> out;
  for (const auto* option : app.get_options()) {
    const bool takes_value = option->get_items_expected_max() > 0;
    for (const auto& name : option->get_lnames()) {
      const std::string flag = "--" + name;
      out.push_back(
          Flag{flag, one_line(option->get_description()), takes_value ? option->get_type_name() : "", values_of(flag)});
    }
    for (const auto& name : option->get_snames()) {
      out.push_back(
          Flag{"-" + name, one_line(option->get_description()), takes_value ? option->get_type_name() : "", {}});
    }
  }
  return out;
}

std::vector<Command> commands_of(const CLI::App& root) {
  std::vector<Command> out;
  for (const auto* sub : root.get_subcommands({})) {
    out.push_back(Command{sub->get_name(), one_line(sub->get_description()), flags_of(*sub)});
  }
  return out;
}

std::string quoted(const std::string& text, const std::string& special) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != std::string::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string bash(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "# bash completion of kitsune2\n_kitsune2() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    [[ $word == -* ]] || { command=$word; break; }\n"
         "  done\n"
         "  case $prev in\n"
         "    --data|--out) COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n"
         "    --config|--check|--tls-cert|--tls-key|--tls-ca) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
         "    --log-level) COMPREPLY=($(compgen -W 'trace debug info warn error off' -- \"$cur\")); return ;;\n"
         "  esac\n"
         "  case $command in\n";
  std::string names;
  for (const auto& command : commands) {
    names += (names.empty() ? "" : " ") + command.name;
    std::string flags;
    for (const auto& flag : command.flags) flags += (flags.empty() ? "" : " ") + flag.name;
    out << "    " << command.name << ")\n";
    if (command.name == "completion") {
      out << "      COMPREPLY=($(compgen -W 'bash zsh fish " << flags << "' -- \"$cur\")) ;;\n";
    } else if (command.name == "share") {
      out << "      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W '" << flags
          << "' -- \"$cur\")); else COMPREPLY=($(compgen -f -- \"$cur\")); fi ;;\n";
    } else {
      out << "      COMPREPLY=($(compgen -W '" << flags << "' -- \"$cur\")) ;;\n";
    }
  }
  out << "    *) COMPREPLY=($(compgen -W '" << names << " --help --version' -- \"$cur\")) ;;\n"
      << "  esac\n}\ncomplete -o filenames -F _kitsune2 kitsune2\n";
  return out.str();
}

std::string zsh(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "#compdef kitsune2\n# zsh completion of kitsune2\n_kitsune2() {\n  local -a commands\n  commands=(\n";
  for (const auto& command : commands) {
    out << "    '" << command.name << ':' << quoted(command.help, ":'") << "'\n";
  }
  out << "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
         "  local command=$words[2]\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const auto& command : commands) {
    out << "    " << command.name << ")\n      _arguments";
    for (const auto& flag : command.flags) {
      std::string help;
      for (const char c : flag.help) {
        if (c == '\'') {
          help += "'\\''";
          continue;
        }
        if (c == '[' || c == ']' || c == ':' || c == '\\') help += '\\';
        help += c;
      }
      out << " \\\n        '" << flag.name << '[' << help << ']';
      if (!flag.kind.empty()) {
        out << ':' << flag.kind.substr(0, flag.kind.find(':')) << ':';
        if (!flag.values.empty()) {
          out << '(';
          for (std::size_t i = 0; i < flag.values.size(); ++i) out << (i ? " " : "") << flag.values[i];
          out << ')';
        } else if (flag.kind == "DIR") {
          out << "_files -/";
        } else if (flag.kind == "FILE") {
          out << "_files";
        }
      }
      out << '\'';
    }
    if (command.name == "share") out << " \\\n        '*:path:_files'";
    if (command.name == "fetch" || command.name == "mirror") out << " \\\n        '1:link:'";
    if (command.name == "completion") out << " \\\n        '1:shell:(bash zsh fish)'";
    out << " ;;\n";
  }
  out << "  esac\n}\n_kitsune2 \"$@\"\n";
  return out.str();
}

std::string fish(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "# fish completion of kitsune2\ncomplete -c kitsune2 -f\n";
  for (const auto& command : commands) {
    out << "complete -c kitsune2 -n __fish_use_subcommand -a " << command.name << " -d '" << quoted(command.help, "'\\")
        << "'\n";
  }
  out << "complete -c kitsune2 -n __fish_use_subcommand -l version -d 'Print the version'\n"
         "complete -c kitsune2 -l help -d 'Print the help'\n";
  for (const auto& command : commands) {
    const std::string seen = "complete -c kitsune2 -n '__fish_seen_subcommand_from " + command.name + "'";
    for (const auto& flag : command.flags) {
      if (flag.name == "--help") continue;
      const bool is_long = flag.name.starts_with("--");
      out << seen << (is_long ? " -l " : " -s ") << flag.name.substr(is_long ? 2 : 1);
      if (flag.kind == "DIR") {
        out << " -x -a '(__fish_complete_directories)'";
      } else if (flag.kind == "FILE") {
        out << " -r -F";
      } else if (!flag.values.empty()) {
        out << " -x -a '";
        for (std::size_t i = 0; i < flag.values.size(); ++i) out << (i ? " " : "") << flag.values[i];
        out << '\'';
      } else if (!flag.kind.empty()) {
        out << " -x";
      }
      out << " -d '" << quoted(flag.help, "'\\") << "'\n";
    }
    if (command.name == "share") out << seen << " -F\n";
    if (command.name == "completion") out << seen << " -a 'bash zsh fish'\n";
  }
  return out.str();
}

}  // namespace

std::string completion_script(const CLI::App& root, const std::string& shell) {
  const auto commands = commands_of(root);
  if (shell == "bash") return bash(commands);
  if (shell == "zsh") return zsh(commands);
  return fish(commands);
}

}  // namespace kitsune2::cli
