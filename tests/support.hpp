// What the tests share: how doctest prints our values, bytes as hex, and the seed of the run.
#ifndef COORD_TESTS_SUPPORT_HPP
#define COORD_TESTS_SUPPORT_HPP

#include "coord.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace support {

extern std::uint64_t seed;  // --seed=N, defined beside main; 0 where none was given

// RETURNS the seed of the command line, or the test's own.
inline std::uint64_t seed_or(std::uint64_t own) { return seed != 0 ? seed : own; }

inline std::string hex(coord::BytesView bytes) {
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (const char byte : bytes) {
        text.push_back(digits[static_cast<unsigned char>(byte) >> 4]);
        text.push_back(digits[static_cast<unsigned char>(byte) & 15]);
    }
    return text;
}

inline std::string unhex(coord::BytesView text) {
    const auto value = [](char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; };
    std::string bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
        bytes.push_back(static_cast<char>(value(text[i]) * 16 + value(text[i + 1])));
    }
    return bytes;
}

// Passes everything on to a storage behind it; those that change something derive from it.
class Forwarding : public coord::Storage {
public:
    explicit Forwarding(coord::Storage& inner) : inner_(inner) {}
    coord::Errc open(coord::RecoverySink& sink, const coord::StorageOwner& owner) override {
        return inner_.open(sink, owner);
    }
    coord::Errc append(coord::BytesView record) override { return inner_.append(record); }
    coord::Errc begin_snapshot() override { return inner_.begin_snapshot(); }
    coord::Errc write_snapshot(coord::BytesView piece) override {
        return inner_.write_snapshot(piece);
    }
    coord::Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        return inner_.end_snapshot(first_needed, replaces);
    }
    coord::Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                              coord::Bytes& out) override {
        return inner_.read_snapshot(snapshot, offset, size, out);
    }
    coord::Errc flush() override { return inner_.flush(); }
    coord::Sequence appended() const override { return inner_.appended(); }
    coord::Sequence durable() const override { return inner_.durable(); }
    coord::Errc health() const override { return inner_.health(); }
    bool has_room() const override { return inner_.has_room(); }
    std::uint64_t id() const override { return inner_.id(); }
    void set_time(coord::Time now) override { inner_.set_time(now); }

protected:
    coord::Storage& inner_;
};

// A whole snapshot at once, where slices are not the matter.
inline coord::Errc append_snapshot(coord::Storage& disk, coord::BytesView bytes,
                                   coord::Sequence first_needed = 0) {
    coord::Errc error = disk.begin_snapshot();
    if (error == coord::Errc::ok) error = disk.write_snapshot(bytes);
    return error == coord::Errc::ok ? disk.end_snapshot(first_needed, false) : error;
}

inline coord::Errc take_snapshot(coord::Log& log, coord::LogPosition position,
                                 coord::BytesView state, std::size_t entries_kept) {
    coord::Errc error = log.begin_snapshot(position);
    if (error == coord::Errc::ok) error = log.write_snapshot(state);
    return error == coord::Errc::ok ? log.end_snapshot(entries_kept) : error;
}

inline coord::Errc install_snapshot(coord::Log& log, coord::LogPosition position,
                                    coord::BytesView state) {
    coord::Errc error = log.begin_install(position);
    if (error == coord::Errc::ok) error = log.write_snapshot(state);
    return error == coord::Errc::ok ? log.end_install() : error;
}

// The state in the log's newest snapshot; "" where there is none.
inline coord::Bytes snapshot_of(const coord::Log& log) {
    coord::Bytes state;
    if (log.snapshot_bytes() == 0) return state;
    REQUIRE(log.read_snapshot(0, SIZE_MAX / 4, state) == coord::Errc::ok);
    return state;
}

inline coord::Bytes save(coord::Machine& machine) {
    coord::Bytes state;
    machine.begin_save();
    while (!machine.save_slice(SIZE_MAX / 4, state)) {
    }
    return state;
}

// The records of a state or of a saved tree, in order of their bytes: the order in which a save
// writes them means nothing. Without the checksum at the end, which goes with that order.
inline std::vector<coord::Bytes> sorted_records(coord::BytesView bytes) {
    std::vector<coord::Bytes> records;
    while (!bytes.empty()) {
        coord::Reader in(bytes);
        const bool is_end = in.u8() == 0;
        const std::size_t size = std::size_t{in.u32()} + 5;
        REQUIRE(in.ok());
        REQUIRE(size <= bytes.size());
        records.emplace_back(bytes.substr(0, is_end ? size - 4 : size));
        bytes.remove_prefix(size);
    }
    std::sort(records.begin(), records.end());
    return records;
}

// The record of an entry behind the last one, which it then is.
inline coord::Bytes entry(coord::LogPosition& last, coord::Zxid zxid, coord::BytesView body = "b") {
    coord::Txn txn;
    txn.zxid = zxid, txn.previous = last.zxid, txn.previous_crc = last.crc;
    txn.session = coord::SessionId{9}, txn.op = coord::OpCode::remove, txn.body = body;
    coord::Bytes record;
    last.crc = coord::encode_entry(txn, record);
    last.zxid = zxid;
    return record;
}

}  // namespace support

namespace coord {
inline namespace COORD_ABI {

inline doctest::String toString(Errc code) { return name(code); }
inline doctest::String toString(CreateMode mode) {
    return doctest::toString(static_cast<std::int32_t>(mode));
}

}  // namespace COORD_ABI
}  // namespace coord

namespace doctest {

template <>
struct StringMaker<coord::Zxid> {
    static String convert(coord::Zxid zxid) {
        return (std::to_string(zxid.epoch()) + "." + std::to_string(zxid.counter())).c_str();
    }
};

template <class Tag, class Rep>
struct StringMaker<coord::Id<Tag, Rep>> {
    static String convert(coord::Id<Tag, Rep> id) {
        return ("#" + std::to_string(id.value)).c_str();
    }
};

template <>
struct StringMaker<coord::Duration> {
    static String convert(coord::Duration stretch) {
        return (std::to_string(stretch.ns) + " ns").c_str();
    }
};

template <>
struct StringMaker<coord::Time> {
    static String convert(coord::Time moment) {
        return ("@" + std::to_string(moment.ns) + " ns").c_str();
    }
};

}  // namespace doctest

#endif
