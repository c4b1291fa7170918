// What the fuzz targets share: facts that must hold, seeds, and a main for compilers without
// libFuzzer.
//
// A target is one file with LLVMFuzzerTestOneInput and seeds(). Compiled with COORD_FUZZ_MAIN, as
// CTest does with every compiler, it is a program of its own:
//
//   fuzz_NAME [--runs=N] [--seed=S] [FILE or FOLDER ...]   the seeds, the files, and N mutations
//   fuzz_NAME --only=K [--seed=S] [FILE or FOLDER ...]     the K-th mutation again, alone
//   fuzz_NAME --make-corpus=FOLDER                         writes the seeds into files there
//
// The same N and S are the same run everywhere. With libFuzzer (Debian: clang, libclang-rt-14-dev):
//
//   printf '#define COORD_IMPLEMENTATION\n#include "coord.hpp"\n' > coord.cpp
//   clang++ -std=c++17 -O1 -g -I. -Itests -fsanitize=fuzzer,address,undefined
//       -fno-sanitize-recover=all tests/fuzz/NAME.cpp coord.cpp -o fuzz_NAME_guided
//   fuzz_NAME --make-corpus=corpus && ./fuzz_NAME_guided -rss_limit_mb=2048 -max_len=8192 corpus
#ifndef COORD_TESTS_FUZZ_HPP
#define COORD_TESTS_FUZZ_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "coord.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace fuzz {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::Reader;
using coord::Writer;

std::vector<Bytes> seeds();  // each target's

inline void expect(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
}

inline BytesView view(const std::uint8_t* data, std::size_t size) {
    return BytesView(reinterpret_cast<const char*>(data), size);
}

inline std::uint32_t u32_at(BytesView bytes, std::size_t at) {
    return Reader(bytes.substr(at)).u32();
}
inline std::uint64_t u64_at(BytesView bytes, std::size_t at) {
    return Reader(bytes.substr(at)).u64();
}

// A body of create or set, or with the data "-" of remove or check; last: its mode or version.
inline Bytes body_of(BytesView path, BytesView data, std::int32_t last, std::int64_t ttl_ms = 0) {
    Bytes body;
    Writer writer(body);
    writer.bytes(path);
    const bool is_null = coord::is_null(data);
    if (is_null) writer.u32(UINT32_MAX);
    if (!is_null && data != "-") writer.bytes(data);
    writer.i32(last);
    if (ttl_ms != 0) writer.i64(ttl_ms);
    return body;
}

// Of a create with an ACL.
inline Bytes body_with_acl(BytesView path, BytesView data, std::int32_t mode,
                           const coord::Acl& acl) {
    Bytes body = body_of(path, data, mode + 65536);  // FORMAT
    Writer(body).bytes(acl.bytes());
    return body;
}

inline Bytes body_of_set_acl(BytesView path, const coord::Acl& acl, std::int32_t aversion) {
    Bytes body;
    Writer writer(body);
    writer.bytes(path), writer.bytes(acl.bytes()), writer.i32(aversion);
    return body;
}

using Parts = std::vector<std::pair<coord::OpCode, Bytes>>;

inline Bytes multi_of(const Parts& parts) {
    Bytes body;
    Writer writer(body);
    writer.u32(static_cast<std::uint32_t>(parts.size()));
    for (const auto& part : parts) {
        writer.u8(static_cast<std::uint8_t>(part.first)), writer.bytes(part.second);
    }
    return body;
}

struct Nobody final : coord::ChangeSink {
    void on_created(BytesView, coord::Zxid, BytesView) override {}
    void on_deleted(BytesView, coord::Zxid, BytesView) override {}
    void on_data_changed(BytesView, coord::Zxid, BytesView) override {}
    void on_children_changed(BytesView, coord::Zxid, BytesView) override {}
};

inline void put_u32(Bytes& bytes, std::size_t at, std::uint32_t value) {
    Writer(bytes).patch_u32(at, value);
}
inline void put_u64(Bytes& bytes, std::size_t at, std::uint64_t value) {
    put_u32(bytes, at, static_cast<std::uint32_t>(value >> 32));
    put_u32(bytes, at + 4, static_cast<std::uint32_t>(value));
}

}  // namespace fuzz

#ifdef COORD_FUZZ_MAIN

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>

namespace fuzz {

constexpr std::size_t allocation_bytes_max = 64 * 1024 * 1024;  // no input of ours asks for more
constexpr std::size_t input_bytes_max = 8192;

inline std::uint64_t seed = 1;
inline std::uint64_t run_now = 0;

inline void on_abort(int) {
    std::fprintf(stderr, "run %llu of seed %llu; again: --only=%llu --seed=%llu\n",
                 static_cast<unsigned long long>(run_now), static_cast<unsigned long long>(seed),
                 static_cast<unsigned long long>(run_now), static_cast<unsigned long long>(seed));
    std::_Exit(1);
}

inline std::uint64_t number_of(coord::Rng& rng) {
    static const std::uint64_t telling[] = {
        0, 1, 2, 3, 4, 16, 63, 64, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536,
        INT32_MAX, INT32_MAX + std::uint64_t{1}, UINT32_MAX - 1, UINT32_MAX,
        INT64_MAX, INT64_MAX + std::uint64_t{1}, UINT64_MAX - 1, UINT64_MAX};
    if (rng.chance(300)) return rng.next();
    return telling[rng.below(sizeof telling / sizeof telling[0])];
}

// One change: a bit, a number of 1 to 8 bytes, a stretch removed, repeated, or from another input.
inline void mutate(Bytes& bytes, const std::vector<Bytes>& others, coord::Rng& rng) {
    const auto size = bytes.size();
    const std::size_t at = size == 0 ? 0 : static_cast<std::size_t>(rng.below(size));
    const std::size_t most = (std::min)(size - at, static_cast<std::size_t>(1) << rng.below(10));
    const std::size_t length = most == 0 ? 0 : 1 + static_cast<std::size_t>(rng.below(most));
    const std::uint64_t how = rng.below(8);
    if (how <= 1 && size > 0) {
        bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ 1u << rng.below(8));
    } else if (how <= 4 && size > 0) {
        const std::uint64_t old = number_of(rng);
        const std::size_t width = std::size_t{1} << rng.below(4);
        Bytes number;
        Writer(number).u64(rng.chance(500) ? old : u64_at(bytes, at) + rng.between(0, 4) - 2);
        bytes.replace(at, width, number.substr(8 - width));
    } else if (how == 5) {
        bytes.erase(at, length);
    } else if (how == 6) {
        bytes.insert(static_cast<std::size_t>(rng.below(size + 1)), bytes.substr(at, length));
    } else {
        const Bytes& other = others[static_cast<std::size_t>(rng.below(others.size()))];
        if (other.empty()) return;
        const std::size_t from = static_cast<std::size_t>(rng.below(other.size()));
        bytes.replace(at, rng.chance(500) ? length : 0, other.substr(from, length + 1));
    }
    if (bytes.size() > input_bytes_max) bytes.resize(input_bytes_max);
}

inline void run(const Bytes& bytes) {
    // A copy of its own size, so that a sanitizer sees a read past its end.
    std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

inline void run_mutation(std::uint64_t k, const std::vector<Bytes>& inputs) {
    run_now = k;
    coord::Rng rng(coord::mix64(seed, k));
    Bytes bytes = inputs[static_cast<std::size_t>(rng.below(inputs.size()))];
    for (std::uint64_t changes = rng.between(1, 6); changes > 0; changes--) {
        mutate(bytes, inputs, rng);
    }
    run(bytes);
}

inline Bytes contents_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(in), {});
}

// RETURNS whether argument is name and a number or text behind it.
inline bool takes(const char* argument, const char* name, const char*& value) {
    const std::size_t size = std::strlen(name);
    if (std::strncmp(argument, name, size) != 0) return false;
    value = argument + size;
    return true;
}

inline int make_corpus(const char* folder) {
    std::filesystem::create_directories(folder);
    int count = 0;
    for (const Bytes& bytes : seeds()) {
        std::ofstream out(std::filesystem::path(folder) / ("seed" + std::to_string(count++)),
                          std::ios::binary);
        out << bytes;
    }
    std::printf("%d seeds in %s\n", count, folder);
    return count > 0 ? 0 : 1;
}

inline void add_inputs(const char* argument, std::vector<Bytes>& inputs) {
    if (!std::filesystem::is_directory(argument)) return inputs.push_back(contents_of(argument));
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argument)) {
        paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) inputs.push_back(contents_of(path));
}

inline int main(int argc, char** argv) {
    std::uint64_t runs = 0, only = 0;
    std::vector<Bytes> inputs = seeds();
    for (int i = 1; i < argc; i++) {
        const char* value = nullptr;
        if (takes(argv[i], "--make-corpus=", value)) return make_corpus(value);
        if (takes(argv[i], "--runs=", value)) {
            runs = std::strtoull(value, nullptr, 0);
        } else if (takes(argv[i], "--seed=", value)) {
            seed = std::strtoull(value, nullptr, 0);
        } else if (takes(argv[i], "--only=", value)) {
            only = std::strtoull(value, nullptr, 0);
        } else {
            add_inputs(argv[i], inputs);
        }
    }
    std::signal(SIGABRT, on_abort);
    if (only != 0) return run_mutation(only, inputs), 0;
    for (const Bytes& bytes : inputs) run(bytes);
    for (std::uint64_t k = 1; k <= runs; k++) run_mutation(k, inputs);
    std::printf("%zu inputs, %llu mutations of seed %llu\n", inputs.size(),
                static_cast<unsigned long long>(runs), static_cast<unsigned long long>(seed));
    return 0;
}

// Not inline: g++ would take free for the counterpart of a new that it does not know.
[[gnu::noinline]] inline void* allocate(std::size_t size) {
    expect(size <= allocation_bytes_max, "no allocation is large");
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
    std::abort();
}
[[gnu::noinline]] inline void give_back(void* memory) { std::free(memory); }

}  // namespace fuzz

void* operator new(std::size_t size) { return fuzz::allocate(size); }
void operator delete(void* memory) noexcept { fuzz::give_back(memory); }
void operator delete(void* memory, std::size_t) noexcept { fuzz::give_back(memory); }

int main(int argc, char** argv) { return fuzz::main(argc, argv); }

#endif  // COORD_FUZZ_MAIN

#endif
