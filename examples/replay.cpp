// Lives the recording of a replica again: prints its calls, one a line, and the state that they
// come to. In a debugger: break on step_into, or on a line of the engine, and step.
//
//     g++ -std=c++17 -g -I. examples/replay.cpp -o replay && ./replay FILE
//
//     --calls N      no further than that call
//     --quiet        the state alone
//     --keys FILE    the ensemble_keys that it had, of 32 bytes each, one after the other
//
// Exits with 0: it did what it did when it was recorded; 1: so it did, and then the recording is
// cut off or damaged; 2: it did something else, at the call that is named; 3: it cannot be replayed
// at all, or the program was called wrongly. Without arguments it tries that out on a recording of
// its own.
#define COORD_IMPLEMENTATION
#include "coord.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

using coord::Bytes;
using coord::BytesView;
using coord::Errc;

struct Options {
    const char* file = nullptr;
    const char* keys = nullptr;
    std::uint64_t calls = UINT64_MAX;
    bool is_quiet = false;
};

static bool read_file(const char* path, Bytes& out) {
    std::FILE* const file = std::fopen(path, "rb");
    if (file == nullptr) return std::fprintf(stderr, "%s: cannot be read\n", path), false;
    char piece[65536];
    for (std::size_t size; (size = std::fread(piece, 1, sizeof piece, file)) > 0;) {
        out.append(piece, size);
    }
    const bool is_good = std::ferror(file) == 0;
    std::fclose(file);
    return is_good;
}

static int replay(BytesView recording, std::vector<Bytes> keys, const Options& options) {
    coord::Replay replay(recording, std::move(keys));
    if (replay.error() != Errc::ok) {
        std::fprintf(stderr, "%s: %s\n", name(replay.error()),
                     replay.error() == Errc::bad_arguments ? "other --keys are needed, or none"
                                                           : text(replay.error()));
        return 3;
    }
    const auto tell = [&] {
        if (!options.is_quiet) std::fwrite(replay.text().data(), 1, replay.text().size(), stdout);
        std::fflush(stdout);  // before an assertion fails
    };
    bool is_more = true;
    while (replay.calls() < options.calls && (is_more = replay.step())) tell();
    bool is_cut = replay.bytes_left() > 0;
    if (!is_more && replay.differs_at() == 0) {
        is_cut = replay.step_into() || is_cut;
        tell();
    }
    std::printf("%s", replay.replica().describe().c_str());
    if (replay.differs_at() != 0) {
        std::printf("it did something else in call %" PRIu64 " than when it was recorded\n",
                    replay.differs_at());
        return 2;
    }
    if (!is_cut) return 0;
    std::printf("the recording ends in the midst of something; %zu bytes of it are damaged\n",
                replay.bytes_left());
    return 1;
}

// What a program does that wants a recording, and what becomes of it.
static int try_out(Options options) {
    coord::Recorder recorder;
    coord::ReplicaOptions with;
    with.recorder = &recorder;
    coord::MemoryStorage disk;
    coord::Replica replica(with, disk);
    coord::Time now;
    const auto pump = [&] {
        now = now + coord::milliseconds(1);
        replica.poll(now);
        return true;
    };
    const coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    if (!session) return 3;
    const coord::Sync zk(*session, pump);
    if (!zk.create("/javaer", "www.javaer.com.cn") || !zk.get("/javaer")) return 3;
    Bytes recording;
    recorder.take(recording);
    const int code = replay(recording, {}, options);
    std::printf("that was %zu bytes\n", recording.size());
    return code;
}

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        const bool has_more = i + 1 < argc;
        if (std::strcmp(argv[i], "--calls") == 0 && has_more) {
            options.calls = std::strtoull(argv[++i], nullptr, 0);
        } else if (std::strcmp(argv[i], "--keys") == 0 && has_more) {
            options.keys = argv[++i];
        } else if (std::strcmp(argv[i], "--quiet") == 0) {
            options.is_quiet = true;
        } else if (argv[i][0] != '-' && options.file == nullptr) {
            options.file = argv[i];
        } else {
            std::fprintf(stderr, "usage: replay [--calls N] [--quiet] [--keys FILE] FILE\n");
            return 3;
        }
    }
    if (options.file == nullptr) return try_out(options);
    Bytes recording, keys;
    if (!read_file(options.file, recording)) return 3;
    if (options.keys != nullptr && !read_file(options.keys, keys)) return 3;
    std::vector<Bytes> all;
    for (std::size_t at = 0; at < keys.size(); at += 32) all.push_back(keys.substr(at, 32));
    return replay(recording, std::move(all), options);
}
