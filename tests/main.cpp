// The one main of the unit tests. Everything that doctest understands is passed on; besides,
//
//   --seed=N    the seed that randomized tests start from, so that a failure can be repeated
//
// support.hpp declares `namespace support { extern std::uint64_t seed; }`; it is defined here.
// Zero means that none was given: a test then uses its own fixed seed.

#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if __has_include("support.hpp")
#include "support.hpp"
#endif

namespace support {
extern std::uint64_t seed;
std::uint64_t seed = 0;
}  // namespace support

int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::strncmp(argv[i], "--seed=", 7) != 0) continue;
        char* end = nullptr;
        support::seed = std::strtoull(argv[i] + 7, &end, 0);
        if (end == argv[i] + 7 || *end != '\0') {
            std::fprintf(stderr, "not a number: %s\n", argv[i]);
            return 2;
        }
        std::printf("seed %llu\n", static_cast<unsigned long long>(support::seed));
    }
    doctest::Context context;
    context.applyCommandLine(argc, argv);
    return context.run();
}
