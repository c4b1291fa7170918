// ZooKeeper's encoding of records, "jute": big-endian numbers, strings and buffers with a length in
// front, vectors with a count. A length of -1 is null, and a string or buffer that is null is
// coord::null_data here, which no other view of nothing is. And the records of the client protocol
// that several requests share.
#pragma once

#include "coord.hpp"

#include <string>

namespace zkserver {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;

// The operations of the client protocol, by their numbers.
namespace op {
constexpr std::int32_t create = 1, remove = 2, exists = 3, get_data = 4, set_data = 5, get_acl = 6,
                       set_acl = 7, get_children = 8, sync = 9, ping = 11, get_children2 = 12,
                       check_version = 13, multi = 14, create2 = 15, reconfig = 16,
                       check_watches = 17, remove_watches = 18, create_container = 19,
                       delete_container = 20, create_ttl = 21, multi_read = 22, auth = 100,
                       set_watches = 101, sasl = 102, get_ephemerals = 103,
                       get_all_children_number = 104, set_watches2 = 105, add_watch = 106,
                       who_am_i = 107, close_session = -11, error = -1;
}  // namespace op

// RETURNS what the operation is called where an operator reads it.
inline const char* op_name(std::int32_t type) {
    switch (type) {
        case op::create: return "CREA";
        case op::remove: return "DELE";
        case op::exists: return "EXIS";
        case op::get_data: return "GETD";
        case op::set_data: return "SETD";
        case op::get_acl: return "GETA";
        case op::set_acl: return "SETA";
        case op::get_children: return "GETC";
        case op::sync: return "SYNC";
        case op::ping: return "PING";
        case op::get_children2: return "GETC";
        case op::multi: return "MULT";
        case op::create2: return "CREA";
        case op::create_container: return "CREC";
        case op::create_ttl: return "CRET";
        case op::multi_read: return "MULR";
        case op::auth: return "AUTH";
        case op::set_watches: return "SETW";
        case op::set_watches2: return "STW2";
        case op::add_watch: return "ADDW";
        case op::close_session: return "CLOS";
        default: return "NA";
    }
}

class JuteReader {
public:
    explicit JuteReader(BytesView bytes) : in_(bytes) {}
    bool ok() const { return ok_ && in_.ok(); }
    std::size_t left() const { return in_.left(); }
    std::int32_t i32() { return in_.i32(); }
    std::int64_t i64() { return in_.i64(); }
    bool boolean() { return in_.u8() != 0; }
    // A string, or a buffer. Views are into the reader's bytes.
    BytesView bytes() {
        const std::int32_t size = in_.i32();
        if (size == -1 || !ok()) return coord::null_data;
        if (size < 0) return ok_ = false, coord::null_data;
        const BytesView view = in_.raw(static_cast<std::size_t>(size));
        if (!in_.ok()) return coord::null_data;
        return size == 0 ? BytesView("") : view;
    }
    coord::Stat stat() {
        coord::Stat stat;
        stat.czxid = zxid(), stat.mzxid = zxid();
        stat.ctime_ms = in_.i64(), stat.mtime_ms = in_.i64();
        stat.version = in_.i32(), stat.cversion = in_.i32(), stat.aversion = in_.i32();
        stat.ephemeral_owner = coord::SessionId{in_.u64()};
        stat.data_length = in_.i32(), stat.num_children = in_.i32();
        stat.pzxid = zxid();
        return stat;
    }
    std::vector<Bytes> names() {
        std::vector<Bytes> names(count(4));
        for (Bytes& name : names) name.assign(bytes());
        return names;
    }
    void fail() { ok_ = false; }
    // Of a vector: how many there are, each of so many bytes at least. Of null there are none.
    std::size_t count(std::size_t item_bytes_min) {
        const std::int32_t count = in_.i32();
        if (count == -1 || !ok()) return 0;
        const bool fits = count >= 0 && static_cast<std::size_t>(count) <= left() / item_bytes_min;
        if (!fits) ok_ = false;
        return fits ? static_cast<std::size_t>(count) : 0;
    }

private:
    coord::Zxid zxid() { return coord::Zxid{in_.u64()}; }
    coord::Reader in_;
    bool ok_ = true;
};

class JuteWriter {
public:
    explicit JuteWriter(Bytes& out) : out_(out) {}
    void i32(std::int32_t value) { out_.i32(value); }
    void i64(std::int64_t value) { out_.i64(value); }
    void zxid(coord::Zxid value) { out_.zxid(value); }
    void boolean(bool value) { out_.u8(value ? 1 : 0); }
    void bytes(BytesView value) { coord::is_null(value) ? out_.i32(-1) : out_.bytes(value); }
    void count(std::size_t value) { out_.u32(static_cast<std::uint32_t>(value)); }
    void stat(const coord::Stat& stat) {
        out_.zxid(stat.czxid), out_.zxid(stat.mzxid);
        out_.i64(stat.ctime_ms), out_.i64(stat.mtime_ms);
        out_.i32(stat.version);
        out_.i32(static_cast<std::int32_t>(stat.cversion));  // 64 bits are not in the protocol
        out_.i32(stat.aversion);
        out_.u64(stat.ephemeral_owner.value);
        out_.i32(stat.data_length), out_.i32(stat.num_children);
        out_.zxid(stat.pzxid);
    }
    void acl(const coord::Acl& acl) {
        const std::size_t size = acl.size();
        count(size);
        for (std::size_t i = 0; i < size; i++) {
            const coord::Acl::Entry entry = acl[i];
            out_.u32(entry.permissions);
            out_.bytes(entry.scheme), out_.bytes(entry.id);
        }
    }
    void names(const std::vector<Bytes>& names) {
        count(names.size());
        for (const Bytes& name : names) out_.bytes(name);
    }
    // A frame, or anything else with its length in front: RETURNS what end wants.
    std::size_t begin() {
        out_.u32(0);
        return out_.size();
    }
    void end(std::size_t begun) {
        out_.patch_u32(begun - 4, static_cast<std::uint32_t>(out_.size() - begun));
    }

private:
    coord::Writer out_;
};

// The first frame of a connection, and the answer to it.
struct ConnectRequest {
    std::int32_t protocol = 0;
    std::int64_t last_zxid = 0;
    std::int32_t timeout_ms = 0;
    std::uint64_t session = 0;
    Bytes password;
    bool has_read_only = false;  // old clients, and many others, end before that byte
    bool read_only = false;

    bool read(BytesView frame) {
        JuteReader in(frame);
        protocol = in.i32(), last_zxid = in.i64(), timeout_ms = in.i32();
        session = static_cast<std::uint64_t>(in.i64());
        password.assign(in.bytes());
        if (!in.ok()) return false;
        has_read_only = in.left() > 0;
        read_only = has_read_only && in.boolean();
        return true;
    }
    void write(Bytes& out) const {
        JuteWriter writer(out);
        const std::size_t frame = writer.begin();
        writer.i32(protocol), writer.i64(last_zxid), writer.i32(timeout_ms);
        writer.i64(static_cast<std::int64_t>(session)), writer.bytes(password);
        if (has_read_only) writer.boolean(read_only);
        writer.end(frame);
    }
};

constexpr std::size_t password_bytes = 16;

struct ConnectResponse {
    std::int32_t timeout_ms = 0;  // 0, or less: there is no such session
    std::uint64_t session = 0;
    coord::SessionPassword password;
    bool has_read_only = false;

    void write(Bytes& out) const {
        JuteWriter writer(out);
        const std::size_t frame = writer.begin();
        writer.i32(0), writer.i32(timeout_ms), writer.i64(static_cast<std::int64_t>(session));
        writer.i32(static_cast<std::int32_t>(password_bytes));
        writer.i64(static_cast<std::int64_t>(password.high));
        writer.i64(static_cast<std::int64_t>(password.low));
        if (has_read_only) writer.boolean(false);
        writer.end(frame);
    }
    bool read(BytesView frame) {
        JuteReader in(frame);
        in.i32(), timeout_ms = in.i32();
        session = static_cast<std::uint64_t>(in.i64());
        const BytesView secret = in.bytes();
        if (!in.ok() || secret.size() != password_bytes) return false;
        coord::Reader words(secret);
        password.high = words.u64(), password.low = words.u64();
        return true;
    }
};

// The fields of a request, or of a part of a multi. Which of them it has its layout says, a letter
// for each, in their order.
struct Ask {
    std::int32_t type = 0;
    BytesView path;             // p; of auth the scheme
    BytesView data;             // d; of auth the credential
    coord::Acl acl;             // a
    bool is_acl_sound = true;   // no scheme that is null
    std::int32_t flags = 0;     // i: a create's mode, a watch's type or mode
    std::int32_t version = 0;   // v
    bool watch = false;         // w
    std::int64_t ttl_ms = 0;    // t

    // RETURNS false where the bytes are not those of such a request.
    bool read(JuteReader& in, const char* layout) {
        for (; *layout != 0; layout++) {
            switch (*layout) {
                case 'p': path = in.bytes(); break;
                case 'd': data = in.bytes(); break;
                case 'a': read_acl(in); break;
                case 'i': flags = in.i32(); break;
                case 'v': version = in.i32(); break;
                case 'w': watch = in.boolean(); break;
                default: ttl_ms = in.i64(); break;
            }
        }
        return in.ok();
    }
    // RETURNS null for what has no fields of this kind.
    static const char* layout(std::int32_t type) {
        switch (type) {
            case op::create:
            case op::create2:
            case op::create_container: return "pdai";
            case op::create_ttl: return "pdait";
            case op::remove:
            case op::check_version: return "pv";
            case op::exists:
            case op::get_data:
            case op::get_children:
            case op::get_children2: return "pw";
            case op::set_data: return "pdv";
            case op::set_acl: return "pav";
            case op::get_acl:
            case op::sync:
            case op::get_ephemerals:
            case op::get_all_children_number: return "p";
            case op::check_watches:
            case op::remove_watches:
            case op::add_watch: return "pi";
            case op::auth: return "ipd";
            case op::ping:
            case op::who_am_i:
            case op::close_session: return "";
            default: return nullptr;
        }
    }

private:
    void read_acl(JuteReader& in) {
        const std::size_t count = in.count(12);
        for (std::size_t i = 0; i < count && in.ok(); i++) {
            const std::int32_t permissions = in.i32();
            const BytesView scheme = in.bytes();
            const BytesView id = in.bytes();
            if (coord::is_null(scheme)) is_acl_sound = false;  // an id may be null, of "auth"
            acl.add(static_cast<std::uint32_t>(permissions) & coord::permission::all, scheme, id);
        }
    }
};

// What comes before each part of a multi, and before each part of the answer to one.
struct MultiHeader {
    std::int32_t type = -1;
    bool done = false;
    std::int32_t error = -1;

    void read(JuteReader& in) { type = in.i32(), done = in.boolean(), error = in.i32(); }
    void write(JuteWriter& out) const { out.i32(type), out.boolean(done), out.i32(error); }
};

}  // namespace zkserver
