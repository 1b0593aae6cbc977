// Stands for libnvrtc.so where there is no card: text becomes a library of the processor's, by g++, and its path stands for
// the PTX. SOFTWARE_CARD names the folder of this file, KEPT that of the libraries, which are kept for the next run.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <string>

namespace fs = std::filesystem;
using std::string;

struct Program { string source, path, log; };

static string read(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The text with what the processor has of its own, and a function for each kernel that driver.c finds.
static string translated(string source) {
  const fs::path here = std::getenv("SOFTWARE_CARD");
  const string prelude = read(here / "../../../models/src/kernels/cuda/prelude.cu");
  const string dynamic = R"(extern\s+__shared__\s+__align__\(\d+\)\s+(?:unsigned char|uint8)\s+(\w+)\[\];)";
  string kernels;
  const std::regex kernel(R"r(extern "C" __global__(?:\s*void|\s*__\w+__\([^)]*\))*\s*(\w+)\s*\()r");
  for (std::sregex_iterator match(source.begin(), source.end(), kernel), end; match != end; ++match)
    kernels += "EXPORT(" + (*match)[1].str() + ")\n";
  const size_t at = source.find(prelude);
  if (at != string::npos) {
    // Defines come before it, the kernels after it.
    string rest = source.substr(at + prelude.size());
    const string hopper = read(here / "../../../models/src/kernels/cuda/hopper.cu");
    const size_t of_hopper = rest.find(hopper);
    if (of_hopper != string::npos) {
      // The text of `wgmma` follows, one function.
      const size_t end = rest.find("\n}\n", of_hopper + hopper.size());
      rest.replace(of_hopper, end + 3 - of_hopper, "#include \"hopper.h\"\n");
    }
    rest = std::regex_replace(rest, std::regex(dynamic), "");
    rest = std::regex_replace(rest, std::regex("__shared__"), "static");
    return source.substr(0, at) + "#include \"emulation.h\"\n" + rest + "\n" + kernels;
  }
  source = std::regex_replace(source, std::regex("#include[^\n]*\n"), "");
  source = std::regex_replace(source, std::regex(dynamic), "unsigned char* $1 = shared;");
  return "#include \"burn.h\"\n" + source + "\n" + kernels;
}

extern "C" {
int nvrtcVersion(int* major, int* minor) { *major = 12; *minor = 4; return 0; }
int nvrtcCreateProgram(Program** to, const char* source, const char*, int, const char* const*, const char* const*) {
  *to = new Program{source, "", ""};
  return 0;
}
int nvrtcDestroyProgram(Program** of) { delete *of; return 0; }
int nvrtcCompileProgram(Program* program, int, const char* const*) {
  if (std::getenv("IDLE")) return 0;
  const string text = translated(program->source), here = std::getenv("SOFTWARE_CARD");
  const string name = string(std::getenv("KEPT")) + "/" + std::to_string(std::hash<string>{}(text));
  program->path = name + ".so";
  if (fs::exists(program->path)) return 0;
  std::ofstream(name + ".cpp") << text;
  const string made = name + "." + std::to_string((size_t)program);
  const string compile = "g++ -std=c++20 -O2 -fno-strict-aliasing -fpermissive -w -shared -fPIC -I'" + here + "' '" + name +
                         ".cpp' -o '" + made + "' 2>'" + name + ".log'";
  if (std::system(compile.c_str()) != 0) {
    program->log = read(name + ".log");
    return 6;
  }
  fs::rename(made, program->path);
  return 0;
}
int nvrtcGetPTXSize(Program* program, size_t* to) { *to = program->path.size() + 1; return 0; }
int nvrtcGetPTX(Program* program, char* to) { strcpy(to, program->path.c_str()); return 0; }
int nvrtcGetProgramLogSize(Program* program, size_t* to) { *to = program->log.size() + 1; return 0; }
int nvrtcGetProgramLog(Program* program, char* to) { strcpy(to, program->log.c_str()); return 0; }
const char* nvrtcGetErrorString(int) { return "an error of the software card"; }
}
