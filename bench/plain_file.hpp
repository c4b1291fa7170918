// What the benchmarks of durable writes compare with: the same bytes in the same batches, written
// into a file that was allocated and written before, with one fdatasync a batch.
#ifndef COORD_BENCH_PLAIN_FILE_HPP
#define COORD_BENCH_PLAIN_FILE_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include <fcntl.h>
#include <unistd.h>

namespace measure {

constexpr std::size_t value_bytes = 128;
// What a set of /value takes in the log: frame, entry, path, value, version.
constexpr std::size_t bytes_a_write = 36 + 62 + 4 + 6 + 4 + value_bytes + 4;

// Five times as many entries as is usual: else at full speed there would be 20 snapshots a second,
// with four syncs each, and nobody writes like that for long.
constexpr std::uint32_t snapshot_every = 50000;

// Wall time, for the disk is what counts.
inline double wall_us() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count()) /
           1e3;
}

// Goes round in a file of that size.
class PlainFile {
public:
    PlainFile(const std::string& path, std::size_t size) : size_(size) {
        file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
        const std::string zeros(1 << 20, '\0');
        for (std::size_t at = 0; at < size; at += zeros.size()) put(zeros, at);
        if (file_ < 0 || ::fsync(file_) != 0) std::abort();
    }
    ~PlainFile() { ::close(file_); }
    PlainFile(const PlainFile&) = delete;
    PlainFile& operator=(const PlainFile&) = delete;
    void write(std::size_t count, std::size_t batch) {
        const std::string bytes(batch * bytes_a_write, 'w');
        for (std::size_t done = 0; done < count; done += batch) {
            if (at_ + bytes.size() > size_) at_ = 0;
            put(bytes, at_);
            at_ += bytes.size();
            if (::fdatasync(file_) != 0) std::abort();
        }
    }

private:
    void put(const std::string& bytes, std::size_t at) {
        const ssize_t written = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
        if (written != static_cast<ssize_t>(bytes.size())) std::abort();
    }
    int file_ = -1;
    std::size_t size_;
    std::size_t at_ = 0;
};

}  // namespace measure

#endif
