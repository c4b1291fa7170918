// A second translation unit that includes the declarations, twice.
#include "coord.hpp"

#include "coord.hpp"

std::uint64_t other_number(std::uint64_t seed);

std::uint64_t other_number(std::uint64_t seed) {
    coord::Rng rng{seed};
    return rng.next();
}
