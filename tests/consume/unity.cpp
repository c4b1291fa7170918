// A unity build: one translation unit that has seen the declarations before the implementation is
// asked for, asks for it twice, and installs a hook for failed assertions.
#include "other.cpp"

void failed(const char* expr, const char* file, long line);
void failed(const char*, const char*, long) {}

#define COORD_ASSERT_HOOK(expr, file, line) ::failed(expr, file, line)
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include "coord.hpp"

#include "consumer.cpp"
