// What the programs of this folder are told on their command lines.
#ifndef COORD_TESTS_SIM_ARGUMENTS_HPP
#define COORD_TESTS_SIM_ARGUMENTS_HPP

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace arguments {

// --name=NUMBER. RETURNS false where it is another one, or no number.
inline bool take(const char* argument, const char* name, std::uint64_t& number) {
    const std::size_t size = std::strlen(name);
    if (std::strncmp(argument, name, size) != 0) return false;
    char* end = nullptr;
    number = std::strtoull(argument + size, &end, 10);
    return end != argument + size && *end == '\0';
}

}  // namespace arguments

#endif
