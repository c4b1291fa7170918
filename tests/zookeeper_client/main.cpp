// The main of the tests of examples/zookeeper_client. They are a program of their own, with an
// implementation in which a tripped assertion is a failure of the case that tripped it: of those of
// 13_conformance.hpp some are to fail here, and must not take the others along.
//
//     zookeeper_client_tests                             over zkserver, in this process
//     COORD_ZOOKEEPER=HOST:PORT zookeeper_client_tests   the conformance cases, over what is there,
//                                                        whose nodes it removes

#include <stdexcept>
#include <string>

#define COORD_ASSERT_HOOK(condition, file, line) \
    throw std::runtime_error(std::string(condition) + ", line " + std::to_string(line))
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <cstdint>

namespace support {
extern std::uint64_t seed;
std::uint64_t seed = 0;
}  // namespace support
