// A program that builds the library as a part of its own project.
#include <cstdio>
#include <kitsune2/version.hpp>

int main() { std::printf("with kitsune2 %s inside\n", kitsune2::version()); }
