// What the benchmarks share: a clock of CPU time, a heap that counts, and the spread of repeats.
// Include it in one file of a program only: it replaces the global operator new.
//
// CPU time, because the machines that run this are shared. Ratios within one run are what counts;
// the two sides of a comparison take turns, so that a slow minute hits both.
#ifndef COORD_BENCH_MEASURE_HPP
#define COORD_BENCH_MEASURE_HPP

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <vector>

namespace measure {

// ---- The heap: bytes as they were asked for, without what malloc adds

// One thread counts for certain; where two allocate at the same time, a count may be lost.
struct Heap {
    std::atomic<std::uint64_t> allocations{0};
    std::atomic<std::uint64_t> bytes_in_use{0};

    void count(std::uint64_t made, std::uint64_t bytes) {
        constexpr auto order = std::memory_order_relaxed;
        allocations.store(allocations.load(order) + made, order);
        bytes_in_use.store(bytes_in_use.load(order) + bytes, order);
    }
};

inline Heap heap;

// In front of each block: its size, and where malloc's own block begins.
struct HeapHeader {
    std::size_t size;
    void* origin;
};
static_assert(sizeof(HeapHeader) <= 16, "the header must keep malloc's alignment");

inline void* counted_allocate(std::size_t size, std::size_t alignment = 16) {
    char* const origin = static_cast<char*>(std::malloc(size + alignment));
    if (origin == nullptr) std::abort();
    const std::size_t past = reinterpret_cast<std::uintptr_t>(origin) % alignment;
    char* const block = origin + alignment - past;
    const HeapHeader header{size, origin};
    std::memcpy(block - 16, &header, sizeof header);
    heap.count(1, size);
    return block;
}

inline void counted_free(void* memory) {
    if (memory == nullptr) return;
    HeapHeader header{};
    std::memcpy(&header, static_cast<char*>(memory) - 16, sizeof header);
    heap.count(0, std::uint64_t{0} - header.size);
    std::free(header.origin);
}

// ---- Time

inline double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

inline double thread_us() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// RETURNS nanoseconds of CPU for each of count turns of work().
template <class Work>
double ns_per_turn(std::size_t count, Work&& work) {
    const double start = cpu_seconds();
    work();
    return (cpu_seconds() - start) * 1e9 / static_cast<double>(count);
}

// Keeps a result that nobody looks at from being optimised away.
inline volatile std::uint64_t sink;
inline void keep(std::uint64_t value) { sink = value; }

// ---- Spread

struct Spread {
    std::vector<double> samples;

    void add(double sample) { samples.push_back(sample); }
    double median() const { return sorted()[samples.size() / 2]; }
    double least() const { return sorted().front(); }
    double most() const { return sorted().back(); }

private:
    std::vector<double> sorted() const {
        std::vector<double> copy = samples;
        std::sort(copy.begin(), copy.end());
        return copy;
    }
};

inline void print_head(const char* title, const char* unit) {
    std::printf("%-44s %10s %10s %10s  %s\n", title, "min", "median", "max", unit);
}

inline void print_row(const char* label, const Spread& spread) {
    std::printf("  %-42s %10.1f %10.1f %10.1f\n", label, spread.least(), spread.median(),
                spread.most());
}

// How many times dearer the reference is; over 1 is in our favour.
inline void print_ratio(const Spread& ours, const Spread& reference) {
    const double ratio = reference.median() / ours.median();
    std::printf("  %-42s %10s %10.2f\n", "reference / coord", "", ratio);
}

inline bool is_quick(int argc, char** argv) {
    return argc > 1 && std::strcmp(argv[1], "--quick") == 0;
}

}  // namespace measure

void* operator new(std::size_t size) { return measure::counted_allocate(size); }
void* operator new[](std::size_t size) { return measure::counted_allocate(size); }
void* operator new(std::size_t size, std::align_val_t alignment) {
    return measure::counted_allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
    return measure::counted_allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { measure::counted_free(memory); }
void operator delete[](void* memory) noexcept { measure::counted_free(memory); }
void operator delete(void* memory, std::size_t) noexcept { measure::counted_free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { measure::counted_free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { measure::counted_free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { measure::counted_free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    measure::counted_free(memory);
}
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
    measure::counted_free(memory);
}

#endif
