// Durable writes of three replicas in three processes, each on files of its own, over TCP on the
// loopback: sets of one node through the leader's session. Beside them the bytes of one replica's
// log, written and synced in the same batches by a plain loop; they take turns. Wall time. All
// files are on one disk, as they should not be elsewhere, so that three syncs share it.
//
// usage: bench_processes [--quick] [directory]    (default: the current one; removes what it made)
#include "coord.hpp"
#include "measure.hpp"
#include "plain_file.hpp"
#include "support/processes.hpp"
#include "support/scratch_directory.hpp"

#include <cinttypes>
#include <optional>
#include <sstream>

#include <sys/resource.h>

namespace {

constexpr int replicas = 3;

// The system's files, and what was asked of them.
class CountedFiles final : public coord::Files {
public:
    std::uint64_t bytes_written = 0;
    std::uint64_t syncs = 0;

    coord::Result<coord::FileId> open(coord::BytesView path, Mode mode) override {
        return files_->open(path, mode);
    }
    void close(coord::FileId file) override { files_->close(file); }
    coord::Result<std::uint64_t> size(coord::FileId file) override { return files_->size(file); }
    coord::Errc read(coord::FileId file, std::uint64_t offset, std::size_t size,
                     coord::Bytes& out) override {
        return files_->read(file, offset, size, out);
    }
    coord::Errc write(coord::FileId file, std::uint64_t offset, coord::BytesView bytes) override {
        bytes_written += bytes.size();
        return files_->write(file, offset, bytes);
    }
    coord::Errc allocate(coord::FileId file, std::uint64_t size) override {
        return files_->allocate(file, size);
    }
    coord::Errc sync(coord::FileId file) override {
        syncs += 1;
        return files_->sync(file);
    }
    coord::Errc rename(coord::BytesView from, coord::BytesView to) override {
        return files_->rename(from, to);
    }
    coord::Errc remove(coord::BytesView path) override { return files_->remove(path); }
    coord::Errc make_directory(coord::BytesView path) override {
        return files_->make_directory(path);
    }
    coord::Errc sync_directory(coord::BytesView path) override {
        syncs += 1;
        return files_->sync_directory(path);
    }
    coord::Errc list(coord::BytesView directory, std::vector<coord::Bytes>& names) override {
        return files_->list(directory, names);
    }
    coord::Result<coord::FileId> lock(coord::BytesView path) override { return files_->lock(path); }
    const char* error_text() const override { return files_->error_text(); }

private:
    decltype(coord::system_files()) files_ = coord::system_files();
};

// ------------------------------------------------------------------------------------------------
// A child: writes when it is told to, and says how long that took

class Worker {
public:
    Worker(Member& member, const CountedFiles& files) : member_(member), files_(files) {
        coord::Session::open(member.replica(), {}, [this](coord::Result<coord::Session> opened) {
            if (opened) session_ = *opened;
        });
    }
    void execute(const std::string& line) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        if (verb == "lead?") {
            const coord::ReplicaStatus status = member_.replica().status();
            const bool leads = status.role == coord::Role::leading && status.serving && session_;
            member_.say(leads ? "yes" : "no");
        } else if (verb == "use") {
            say_use();
        } else if (verb == "create") {
            session_->create("/value", "", {}, [this](coord::Result<coord::Created> r) {
                member_.say(coord::name(r.error()));
            });
        } else {
            words >> left_ >> in_flight_;
            started_at_ = measure::wall_us();
            const std::size_t first = (std::min)(left_, in_flight_);
            for (std::size_t i = 0; i < first; i++) write();
        }
    }

private:
    void write() {
        left_ -= 1, open_ += 1;
        session_->set("/value", value_, [this](coord::Result<coord::Stat> r) {
            if (!r) std::abort();
            open_ -= 1;
            if (left_ > 0) return write();
            if (open_ == 0) member_.say(std::to_string(measure::wall_us() - started_at_));
        });
    }
    void say_use() {
        rusage used{};
        ::getrusage(RUSAGE_SELF, &used);
        const std::int64_t seconds = used.ru_utime.tv_sec + used.ru_stime.tv_sec;
        const std::int64_t us = used.ru_utime.tv_usec + used.ru_stime.tv_usec;
        std::ostringstream text;
        text << seconds * 1000000 + us << " " << files_.bytes_written << " " << files_.syncs;
        member_.say(text.str());
    }
    Member& member_;
    const CountedFiles& files_;
    std::optional<coord::Session> session_;
    coord::Bytes value_ = coord::Bytes(measure::value_bytes, 'v');
    std::size_t left_ = 0;             // not asked for yet
    std::size_t open_ = 0;             // asked for
    std::size_t in_flight_ = 0;
    double started_at_ = 0;
};

void run_replica(const Seat& seat) {
    CountedFiles files;
    coord::FileStorageOptions storage_options;
    storage_options.directory = seat.directory, storage_options.files = &files;
    coord::FileStorage storage(storage_options);
    coord::ReplicaOptions options;
    options.timing.silence = coord::seconds(5);  // a disk that is shared may take its time
    options.snapshot_every_entries = measure::snapshot_every;
    Member member(seat, storage, options);
    Worker worker(member, files);
    member.run([&](const std::string& line) { worker.execute(line); });
}

// ------------------------------------------------------------------------------------------------
// The parent

struct Use {  // of all replicas
    double cpu_us = 0;
    double bytes = 0;
    double syncs = 0;
};

class Bench {
public:
    explicit Bench(bool quick) : quick_(quick) {}
    int run() {
        if (directory_.path().empty()) return fail("no directory");
        const std::string error =
            processes_.start(replicas, quick_ ? 100 : 900, run_replica, directory_.path());
        if (!error.empty()) return fail(error);
        for (int turn = 0; leader_ == 0 && turn < 300; turn++) find_leader();
        if (leader_ == 0) return fail("nobody leads");
        if (ask(leader_, "create") != "ok") return fail("no node");
        measure::PlainFile plain(directory_.path() + "/plain", 16 << 20);
        write(quick_ ? 10000 : 400000, 1024);  // some snapshots and segments
        for (const std::size_t in_flight : {1u, 64u, 1024u}) compare(plain, in_flight);
        return processes_.quit() ? 0 : fail("a process did not end well");
    }

private:
    void compare(measure::PlainFile& plain, std::size_t in_flight) {
        const std::size_t count =
            (quick_ ? 20 : in_flight == 1 ? 500 : in_flight == 64 ? 100 : 40) * in_flight;
        const int turns = quick_ ? 2 : 7;
        measure::Spread ours, reference;
        write(count, in_flight), plain.write(count, in_flight);
        const Use before = use();
        for (int i = 0; i < turns; i++) {
            ours.add(write(count, in_flight) / static_cast<double>(count));
            const double start = measure::wall_us();
            plain.write(count, in_flight);
            reference.add((measure::wall_us() - start) / static_cast<double>(count));
        }
        const Use after = use();
        const double writes = static_cast<double>(count) * turns;
        std::printf("%zu in flight\n", in_flight);
        measure::print_row("coord, three processes", ours);
        measure::print_row("write and fdatasync alone", reference);
        measure::print_ratio(ours, reference);
        print("CPU us a write, all three", (after.cpu_us - before.cpu_us) / writes);
        print("bytes written a write, each", (after.bytes - before.bytes) / writes / replicas);
        print("syncs a write, each", (after.syncs - before.syncs) / writes / replicas);
    }
    static void print(const char* label, double value) {
        std::printf("  %-42s %10s %10.3f\n", label, "", value);
    }
    // RETURNS us for all of them.
    double write(std::size_t count, std::size_t in_flight) {
        std::ostringstream command;
        command << "write " << count << " " << in_flight;
        return std::atof(ask(leader_, command.str()).c_str());
    }
    Use use() {
        Use all;
        for (int id = 1; id <= replicas; id++) {
            double cpu_us = 0, bytes = 0, syncs = 0;
            std::istringstream(ask(id, "use")) >> cpu_us >> bytes >> syncs;
            all.cpu_us += cpu_us, all.bytes += bytes, all.syncs += syncs;
        }
        return all;
    }
    void find_leader() {
        for (int id = 1; id <= replicas; id++) {
            if (ask(id, "lead?") == "yes") leader_ = id;
        }
        ::usleep(50000);
    }
    // Whoever is not answered in time is ended by the alarm that Processes has set.
    std::string ask(int id, const std::string& command) {
        Processes::Line line;
        processes_.tell(id, command);
        while (!processes_.hear(line, monotonic_now() + coord::seconds(1))) {}
        return line.text;
    }
    static int fail(const std::string& why) {
        return std::fprintf(stderr, "FAILED: %s\n", why.c_str()), 1;
    }

    const bool quick_;
    ScratchDirectory directory_;       // outlives the processes
    Processes processes_;
    int leader_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const char* const where = argc > (quick ? 2 : 1) ? argv[quick ? 2 : 1] : ".";
    ::setenv("TMPDIR", where, 1);
    measure::print_head("durable writes of 128 bytes", "us a write");
    return Bench(quick).run();
}
