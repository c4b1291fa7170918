// Durable writes of one replica on files, beside a loop that writes the same bytes in the same
// batches into a file that was allocated before, with one fdatasync a batch. Wall time, for the
// disk is what counts; both take turns.
//
// usage: bench_storage [--quick] [directory]      (default: the current one; removes what it made)
#include "coord.hpp"
#include "measure.hpp"

#include <chrono>

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

namespace {

constexpr std::size_t value_bytes = 128;
// What a set of /value takes in the log: frame, entry, path, value, version.
constexpr std::size_t bytes_a_write = 36 + 62 + 4 + 6 + 4 + value_bytes + 4;

double wall_us() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()) /
           1e3;
}

class Durable {
public:
    explicit Durable(const coord::Bytes& directory) : disk_(directory) {
        coord::ReplicaOptions options;
        options.entropy = 1;
        replica_ = std::make_unique<coord::Replica>(options, disk_);
        coord::SessionId id;
        replica_->open_session({}, [&](coord::Result<coord::SessionId> s) { id = s.value(); });
        while (id == coord::SessionId{}) poll();
        id_ = id;
        coord::Request request;
        request.kind = coord::Request::Kind::create;
        request.path = "/value";
        replica_->submit(id_, std::move(request));
        poll(), poll();
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
        now_ = now_ + coord::microseconds(1);
        replica_->poll(now_);
        if (replica_->status().role == coord::Role::failed) std::abort();
    }
    coord::FileStorage disk_;
    std::unique_ptr<coord::Replica> replica_;
    coord::SessionId id_;
    coord::Time now_;
    coord::Bytes value_ = coord::Bytes(value_bytes, 'v');
    std::size_t done_ = 0;
};

// Goes round in a file of that size.
class Plain {
public:
    Plain(const coord::Bytes& path, std::size_t size) : size_(size) {
        file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
        const coord::Bytes zeros(1 << 20, '\0');
        for (std::size_t at = 0; at < size; at += zeros.size()) put(zeros, at);
        if (file_ < 0 || ::fsync(file_) != 0) std::abort();
    }
    ~Plain() { ::close(file_); }
    void write(std::size_t count, std::size_t batch) {
        const coord::Bytes bytes(batch * bytes_a_write, 'w');
        for (std::size_t done = 0; done < count; done += batch) {
            if (at_ + bytes.size() > size_) at_ = 0;
            put(bytes, at_);
            at_ += bytes.size();
            if (::fdatasync(file_) != 0) std::abort();
        }
    }

private:
    void put(const coord::Bytes& bytes, std::size_t at) {
        const ssize_t written = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (written != static_cast<ssize_t>(bytes.size())) std::abort();
    }
    int file_ = -1;
    std::size_t size_;
    std::size_t at_ = 0;
};

void remove_all(const coord::Bytes& directory) {
    if (DIR* const listed = ::opendir(directory.c_str())) {
        while (const dirent* const entry = ::readdir(listed)) {
            ::unlink((directory + "/" + entry->d_name).c_str());
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
    {
        Durable durable(directory);
        Plain plain(directory + "/plain", 16 << 20);
        durable.write(quick ? 40000 : 200000, 1024);  // some snapshots and segments
        for (const std::size_t in_flight : {1u, 64u, 1024u}) {
            const std::size_t count = (quick ? 20 : in_flight == 1 ? 2000 : 200) * in_flight;
            measure::Spread ours, reference;
            durable.write(count, in_flight), plain.write(count, in_flight);
            std::uint64_t made = 0;
            for (int i = 0; i < (quick ? 2 : 9); i++) {
                const std::uint64_t before = measure::heap.allocations;
                double start = wall_us();
                durable.write(count, in_flight);
                const double end = wall_us();
                made += measure::heap.allocations - before;
                ours.add((end - start) / static_cast<double>(count));
                start = wall_us();
                plain.write(count, in_flight);
                reference.add((wall_us() - start) / static_cast<double>(count));
            }
            const double writes = static_cast<double>(count) * (quick ? 2 : 9);
            std::printf("%zu in flight\n", in_flight);
            measure::print_row("coord, standalone", ours);
            measure::print_row("write and fdatasync alone", reference);
            measure::print_ratio(ours, reference);
            std::printf("  %-42s %10s %10.4f\n", "allocations a write", "",
                        static_cast<double>(made) / writes);
        }
        std::printf("%-44s %10s %10zu\n", "bytes of log a write", "", bytes_a_write);
    }
    remove_all(directory);
    return 0;
}
