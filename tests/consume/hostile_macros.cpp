// What windows.h, X11, glibc and Unreal define, in force while the header is read. The standard
// headers come first, because they are not written for this; coord.hpp is.
#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>
#if defined(__unix__) || defined(__APPLE__)
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#endif

#undef major
#undef minor
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#define Status int
#define None 0L
#define Success 0
#define Bool int
#define True 1
#define False 0
#define Always 2
#define DELETE (0x00010000L)
#define ERROR 0
#define near
#define far
#define small char
#define interface struct
#define major(dev) hostile_major(dev)
#define minor(dev) hostile_minor(dev)
#define check(x) hostile check(x)
#define verify(x) hostile verify(x)
#define ensure(x) hostile ensure(x)
#define index(a, b) hostile index(a, b)

#define COORD_IMPLEMENTATION
#include "coord.hpp"
