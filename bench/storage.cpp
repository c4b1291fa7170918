// Durable writes of one replica on files, with and without a thread before them, beside a loop that
// writes the same bytes in the same batches into a file that was allocated before, with one
// fdatasync a batch. Wall time, for the disk is what counts; they take turns.
//
// usage: bench_storage [--quick] [directory]      (default: the current one; removes what it made)
#include "coord.hpp"
#include "measure.hpp"
#include "plain_file.hpp"

#include <condition_variable>
#include <memory>
#include <mutex>

#include <dirent.h>
#include <unistd.h>

namespace {

using measure::wall_us;

// What a loop sleeps on until the thread of its storage has come on.
class Alarm {
public:
    void ring() {
        const std::lock_guard<std::mutex> lock(mutex_);
        is_rung_ = true;
        rung_.notify_one();
    }
    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        rung_.wait(lock, [this] { return is_rung_; });
        is_rung_ = false;
    }

private:
    std::mutex mutex_;
    std::condition_variable rung_;
    bool is_rung_ = false;
};

class Durable {
public:
    Durable(const coord::Bytes& directory, bool has_thread) : disk_(directory) {
        if (has_thread) {
            thread_ = std::make_unique<coord::BackgroundStorage>(disk_, [this] { alarm_.ring(); });
        }
        coord::Storage& storage = has_thread ? static_cast<coord::Storage&>(*thread_) : disk_;
        coord::ReplicaOptions options;
        options.entropy = 1, options.snapshot_every_entries = measure::snapshot_every;
        replica_ = std::make_unique<coord::Replica>(options, storage);
        coord::SessionId id;
        replica_->open_session({}, [&](coord::Result<coord::SessionId> s) { id = s.value(); });
        while (id == coord::SessionId{}) poll();
        id_ = id;
        coord::Request request;
        request.kind = coord::Request::Kind::create;
        request.path = "/value";
        bool is_created = false;
        request.done = coord::OnCreated([&](coord::Result<coord::Created>) { is_created = true; });
        replica_->submit(id_, std::move(request));
        while (!is_created) poll();
    }

    void write(std::size_t count, std::size_t in_flight) {
        std::size_t submitted = 0;
        done_ = 0;
        while (done_ < count) {
            while (submitted < count && submitted - done_ < in_flight) {
                coord::Request request;
                request.kind = coord::Request::Kind::set;
                request.path = "/value", request.data = value_;
                request.done = coord::OnStat([this](coord::Result<coord::Stat> r) {
                    if (!r) std::abort();
                    done_ += 1;
                });
                replica_->submit(id_, std::move(request));
                submitted += 1;
            }
            poll();
        }
    }

private:
    void poll() {
        const coord::Time now{static_cast<std::int64_t>(wall_us() * 1e3)};
        replica_->poll(now);
        if (replica_->status().role == coord::Role::failed) std::abort();
        if (thread_ && replica_->log().is_waiting() && replica_->next_deadline() > now) {
            alarm_.wait();
        }
    }
    coord::FileStorage disk_;
    Alarm alarm_;
    std::unique_ptr<coord::BackgroundStorage> thread_;
    std::unique_ptr<coord::Replica> replica_;
    coord::SessionId id_;
    coord::Bytes value_ = coord::Bytes(measure::value_bytes, 'v');
    std::size_t done_ = 0;
};

// RETURNS us a write.
template <class Writes>
double time_of(Writes& writes, std::size_t count, std::size_t in_flight) {
    const double start = wall_us();
    writes.write(count, in_flight);
    return (wall_us() - start) / static_cast<double>(count);
}

void run(const coord::Bytes& directory, bool quick) {
    Durable durable(directory + "/files", false), threaded(directory + "/thread", true);
    measure::PlainFile plain(directory + "/plain", 16 << 20);
    for (Durable* const each : {&durable, &threaded}) {
        each->write(quick ? 10000 : 400000, 1024);  // some snapshots and segments
    }
    for (const std::size_t in_flight : {1u, 64u, 1024u}) {
        const std::size_t count = (quick ? 20 : in_flight == 1 ? 1000 : 150) * in_flight;
        const int turns = quick ? 2 : 7;
        measure::Spread ours, behind, reference;
        durable.write(count, in_flight), threaded.write(count, in_flight);
        plain.write(count, in_flight);
        std::uint64_t made = 0;
        for (int i = 0; i < turns; i++) {
            const std::uint64_t before = measure::heap.allocations;
            const double own = time_of(durable, count, in_flight);
            made += measure::heap.allocations - before;
            ours.add(own);
            behind.add(time_of(threaded, count, in_flight));
            reference.add(time_of(plain, count, in_flight));
        }
        std::printf("%zu in flight\n", in_flight);
        measure::print_row("coord, standalone", ours);
        measure::print_row("the same behind a BackgroundStorage", behind);
        measure::print_row("write and fdatasync alone", reference);
        measure::print_ratio(ours, reference);
        const double writes = static_cast<double>(count) * turns;
        std::printf("  %-42s %10s %10.4f\n", "allocations a write", "",
                    static_cast<double>(made) / writes);
    }
}

void remove_all(const coord::Bytes& directory) {
    if (DIR* const listed = ::opendir(directory.c_str())) {
        while (const dirent* const entry = ::readdir(listed)) {
            const coord::Bytes name = entry->d_name;
            if (name == "." || name == "..") continue;
            if (::unlink((directory + "/" + name).c_str()) != 0) std::perror(name.c_str());
        }
        ::closedir(listed);
    }
    ::rmdir(directory.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const char* const where = argc > (quick ? 2 : 1) ? argv[quick ? 2 : 1] : ".";
    coord::Bytes directory = coord::Bytes(where) + "/bench_storage.XXXXXX";
    if (::mkdtemp(&directory[0]) == nullptr) return std::perror(directory.c_str()), 1;
    measure::print_head("durable writes of 128 bytes", "us a write");
    run(directory, quick);
    std::printf("%-44s %10s %10zu\n", "bytes of log a write", "",
                measure::bytes_a_write);
    for (const char* const part : {"/files", "/thread", ""}) remove_all(directory + part);
    return 0;
}
