// Fuzz target: arbitrary bytes in the files of a storage. FileStorage::open takes them or says
// corrupt, and then has touched nothing; what it takes it hands over a second time alike, appends
// to, takes snapshots of, and opens again to the same. How to run it: fuzz.hpp.
//
// ctest: --runs=60000
//
// Input: u8 flags, then files: u8 kind, u8 number, u16 size, contents. Kinds: 0 log, 1 snapshot, 2
// mark, 3 spare, 4 snapshot.tmp; numbers from 240 on stand for the last ones that there are. Flags:
// 1 = checksums are put right, 2 = and the chain of the frames, 4 = and their sequences, 8 = and
// that of the segments, 16 = snapshots get what their markers say, 32 = ensemble and id.
#include "fuzz.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "simulated_disk.hpp"

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::Errc;
using fuzz::Writer;
using support::SimulatedFiles;

enum Flag { checksums = 1, chain = 2, sequences = 4, segments = 8, markers = 16, owner = 32 };

constexpr coord::StorageOwner the_owner{7, 12345};
constexpr std::size_t header_bytes = 64;  // FORMAT, and all offsets below
constexpr std::size_t frame_bytes = 36;
constexpr std::uint64_t first_bytes_of_log = 0x636F6F72646C6F67u;
constexpr std::size_t segment_bytes = 512;
const char* const kinds[] = {"log.", "snapshot.", "mark", "spare.", "snapshot.tmp"};

using Contents = std::map<std::string, Bytes>;  // of the files, by path

std::string path_of(std::uint8_t kind, std::uint64_t number) {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
    const bool has_number = kind != 2 && kind != 4;
    return std::string("data/") + kinds[kind] + (has_number ? digits : "");
}

// -- Files to an input and back -------------------------------------------------------------------

Contents contents_of(BytesView input) {
    Contents out;
    coord::Reader in(input);
    while (in.left() > 4) {
        const std::uint8_t kind = in.u8() % 5, number = in.u8();
        const std::size_t size = std::size_t{in.u8()} << 8 | in.u8();
        const std::uint64_t far = UINT64_MAX - 255 + number;
        out[path_of(kind, number >= 240 ? far : number)] =
            Bytes(in.raw((std::min)(size, in.left())));
    }
    return out;
}

Bytes input_of(const SimulatedFiles& disk, std::uint8_t flags) {
    Bytes out(1, static_cast<char>(flags));
    for (const std::string& path : disk.paths()) {
        for (std::uint8_t kind = 0; kind < 5; kind++) {
            const std::string start = path_of(kind, 0);
            const std::size_t digits = kind == 2 || kind == 4 ? 0 : 16;
            const std::size_t stem = start.size() - digits;
            if (path.size() != start.size() || path.substr(0, stem) != start.substr(0, stem)) {
                continue;
            }
            const auto number = digits == 0 ? 0 : std::strtoull(path.c_str() + stem, nullptr, 16);
            const std::size_t size = disk.contents(path).size();
            Writer writer(out);
            writer.u8(kind), writer.u8(static_cast<std::uint8_t>(number));
            writer.u8(static_cast<std::uint8_t>(size >> 8));
            writer.u8(static_cast<std::uint8_t>(size));
            writer.raw(disk.contents(path));
        }
    }
    return out;
}

// The same files with sequences that go up to the last one that there is, or nearly; flags put the
// rest right. A marker of ours has the state's 5 bytes and says which record it needs first.
Bytes far_away(Bytes input, std::uint8_t base) {
    const std::uint64_t move = UINT64_MAX - 255 + base - 1;
    for (std::size_t at = 1; at + 4 <= input.size();) {
        const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(input[at + i]); };
        if (byte(0) <= 1) input[at + 1] = static_cast<char>((std::min)(255, base + byte(1) - 1));
        at += 4 + (std::size_t{byte(2)} << 8 | byte(3));
    }
    for (std::size_t at = 0; at + 16 <= input.size(); at++) {
        const std::uint64_t needed = fuzz::u64_at(input, at);
        if (needed == 0 || needed > 30 || fuzz::u64_at(input, at + 8) != 5) continue;
        fuzz::put_u64(input, at, needed + move);
    }
    return input;
}

// -- Putting right --------------------------------------------------------------------------------

void put_header(Bytes& file, unsigned flags) {
    if (file.size() < header_bytes) return;
    if ((flags & owner) != 0) {
        fuzz::put_u32(file, 8, 1), fuzz::put_u64(file, 12, the_owner.ensemble);
        fuzz::put_u64(file, 20, 99);
    }
    fuzz::put_u32(file, 60, coord::crc32c(BytesView(file).substr(0, 60)));
}

bool is_snapshot(const std::string& path) { return path.compare(0, 14, path_of(1, 0), 0, 14) == 0; }

// A marker, and the snapshot that it is of, say the same.
void put_marker(Bytes& body, std::uint64_t sequence, Contents& all) {
    const auto found = all.find(path_of(1, sequence));
    if (found == all.end() || found->second.size() < header_bytes) return;
    body.resize(21);
    Bytes& file = found->second;
    const std::uint32_t crc = coord::crc32c(BytesView(file).substr(header_bytes));
    fuzz::put_u64(body, 8, file.size() - header_bytes), fuzz::put_u32(body, 16, crc);
    body[20] = body[20] == 1 ? '\1' : '\0';
    fuzz::put_u64(file, 28, sequence), fuzz::put_u64(file, 36, fuzz::u64_at(body, 0));
    fuzz::put_u64(file, 44, file.size() - header_bytes), fuzz::put_u32(file, 52, crc);
    file[56] = body[20];
}

// Goes over the frames of a segment as far as their sizes lead.
void put_frames(Bytes& file, unsigned flags, Contents& all, std::uint64_t& next,
                std::uint32_t& last) {
    Bytes id;
    Writer(id).u64(fuzz::u64_at(file, 20));
    const std::uint32_t salt = coord::crc32c(id);
    std::size_t at = header_bytes;
    while (at + frame_bytes <= file.size()) {
        const std::size_t size = fuzz::u32_at(file, at);
        if (size > file.size() - at - frame_bytes || fuzz::u64_at(file, at + 8) == 0) return;
        if ((flags & sequences) != 0) fuzz::put_u64(file, at + 8, next);
        next = fuzz::u64_at(file, at + 8);
        if (file[at + 28] == 2 && (flags & markers) != 0) {
            Bytes body = file.substr(at + frame_bytes, size);
            if (size == 21) put_marker(body, next, all);
            file.replace(at + frame_bytes, size, body);
        }
        fuzz::put_u32(file, at + 4, coord::crc32c(BytesView(file).substr(at + frame_bytes, size)));
        if ((flags & chain) != 0) fuzz::put_u32(file, at + 24, last);
        last = coord::crc32c(BytesView(file).substr(at, frame_bytes - 4), salt);
        fuzz::put_u32(file, at + 32, last);
        next += 1, at += frame_bytes + size;
    }
}

void put_right(Contents& all, unsigned flags) {
    std::uint64_t next = 0;
    std::uint32_t last = 0;
    for (auto& [path, file] : all) {
        if (is_snapshot(path) || path.compare(0, 8, "data/log") != 0) continue;
        if (file.size() < header_bytes || fuzz::u64_at(file, 0) != first_bytes_of_log) continue;
        const std::uint64_t number = std::strtoull(path.c_str() + 9, nullptr, 16);
        if ((flags & segments) != 0) {
            fuzz::put_u64(file, 28, number);
            if (next == number) fuzz::put_u32(file, 52, last);
        }
        put_header(file, flags);
        next = fuzz::u64_at(file, 28), last = fuzz::u32_at(file, 52);
        put_frames(file, flags, all, next, last);
    }
    for (auto& [path, file] : all) {
        if (is_snapshot(path) || path == "data/mark") put_header(file, flags);
    }
}

// -- What must hold -------------------------------------------------------------------------------

struct Heard final : coord::RecoverySink {
    std::vector<std::string> lines;
    coord::Sequence snapshot = 0, last = 0;
    std::uint64_t size = 0;
    void hear(coord::Sequence sequence) {
        fuzz::expect(sequence > last, "sequences are handed over in order");
        last = sequence;
    }
    void on_record(coord::Sequence sequence, BytesView record) override {
        hear(sequence);
        lines.push_back(std::to_string(sequence) + " " + Bytes(record));
    }
    void on_snapshot(coord::Sequence sequence, BytesView head, std::uint64_t bytes) override {
        hear(sequence);
        fuzz::expect(snapshot == 0, "one snapshot is handed over");
        lines.push_back(std::to_string(sequence) + " [" + Bytes(head) + "]");
        snapshot = sequence, size = bytes;
    }
};

coord::FileStorageOptions options_on(SimulatedFiles& disk) {
    coord::FileStorageOptions options;
    options.directory = "data", options.segment_bytes = segment_bytes, options.files = &disk;
    return options;
}

void read_newest(coord::FileStorage& storage, const Heard& heard) {
    if (heard.snapshot == 0) return;
    Bytes bytes;
    const auto size = static_cast<std::size_t>(heard.size) + 1;
    fuzz::expect(storage.read_snapshot(heard.snapshot, 0, size, bytes) == Errc::ok, "it is read");
    fuzz::expect(bytes.size() + 1 == size, "a snapshot has its size");
}

// The process ends and another one opens the files.
std::vector<std::string> reopened(const SimulatedFiles& files) {
    SimulatedFiles disk = files;
    disk.end_process();
    coord::FileStorage storage(options_on(disk));
    Heard heard;
    fuzz::expect(storage.open(heard, the_owner) == Errc::ok, "what was opened opens again");
    read_newest(storage, heard);
    return heard.lines;
}

void append(coord::FileStorage& storage, const Bytes& record, std::vector<std::string>& lines) {
    fuzz::expect(storage.append(record) == Errc::ok, "an open storage takes records");
    lines.push_back(std::to_string(storage.appended()) + " " + record);
}

void flush(coord::FileStorage& storage) {
    fuzz::expect(storage.flush() == Errc::ok, "an open storage is flushed");
    fuzz::expect(storage.durable() == storage.appended(), "and all of it is durable");
}

void go_on(coord::FileStorage& storage, const SimulatedFiles& disk,
           std::vector<std::string> lines) {
    append(storage, "one", lines), append(storage, Bytes(300, '2'), lines);
    flush(storage);
    append(storage, Bytes(200, '3'), lines), append(storage, Bytes(900, '4'), lines);
    append(storage, "five", lines);
    flush(storage);
    fuzz::expect(reopened(disk) == lines, "what was appended is there behind what was");
    for (int i = 0; i < 4; i++) {
        Errc error = storage.begin_snapshot();
        if (error == Errc::ok) error = storage.write_snapshot("a snapshot");
        if (error == Errc::ok) error = storage.end_snapshot(storage.appended() + 1, false);
        fuzz::expect(error == Errc::ok, "an open storage takes snapshots");
        lines = {std::to_string(storage.appended()) + " [a snapshot]"};
        append(storage, "behind it", lines);
        flush(storage);
    }
    fuzz::expect(reopened(disk) == lines, "and so are the snapshot and what came after");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    Contents all = contents_of(fuzz::view(data, size).substr(1));
    if ((data[0] & checksums) != 0) put_right(all, data[0]);
    SimulatedFiles disk;
    for (const auto& [path, file] : all) disk.set_contents(path, file);
    Heard heard;
    coord::FileStorage storage(options_on(disk));
    const Errc error = storage.open(heard, the_owner);
    if (error != Errc::ok) {
        fuzz::expect(error == Errc::corrupt, "an open fails because of damage alone");
        fuzz::expect(!storage.reason().empty(), "and says why");
        for (const auto& [path, file] : all) {
            fuzz::expect(disk.exists(path) && disk.contents(path) == file, "nothing was touched");
        }
        return 0;
    }
    read_newest(storage, heard);
    fuzz::expect(reopened(disk) == heard.lines, "a second open hands over the same");
    go_on(storage, disk, heard.lines);
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    std::vector<Bytes> out;
    for (const char* script : {"", "aaf", "aafsfaf", "aAfsfaAfrfaf", "AfAfAfAfsfAfAf",
                               "afsfafsfafsfafsfAAAfAf", "aafbaf", "aafaa"}) {
        SimulatedFiles disk;
        {
            coord::FileStorage storage(options_on(disk));
            Heard heard;
            fuzz::expect(storage.open(heard, the_owner) == Errc::ok, "a new storage opens");
            for (const char* step = script; *step != 0; step++) {
                if (*step == 'a') storage.append("record");
                if (*step == 'A') storage.append(Bytes(170, 'x'));
                if (*step == 'f') storage.flush();
                if (*step == 's' || *step == 'r' || *step == 'b') storage.begin_snapshot();
                if (*step == 's' || *step == 'r' || *step == 'b') storage.write_snapshot("state");
                if (*step == 's' || *step == 'r') {
                    storage.end_snapshot(storage.appended() + 1, *step == 'r');
                }
            }
        }
        for (const unsigned flags : {0u, 63u, 1u}) {
            out.push_back(input_of(disk, static_cast<std::uint8_t>(flags)));
        }
        out.push_back(far_away(input_of(disk, 63), 240));
        out.push_back(far_away(input_of(disk, 63), 249));
    }
    return out;
}
