// What a user writes: the declarations only. The other half is in other.cpp.
#include "coord.hpp"

#include <cstdio>

std::uint64_t other_number(std::uint64_t seed);

int main() {
    coord::Rng rng{7};
    const std::uint64_t number = rng.next();
    std::printf("%llu\n", static_cast<unsigned long long>(number));
    if (number == rng.next()) return 1;          // a generator that stands still
    return number == other_number(7) ? 0 : 2;    // and every translation unit sees the same one
}
