// A machine driven by hand, with transactions as a log would hold them.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace machine {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Limits;
using coord::Machine;
using coord::OpCode;
using coord::Outcome;
using coord::SessionId;
using coord::Txn;
using coord::Writer;
using coord::Zxid;
using Lines = std::vector<std::string>;

// Writes down what it hears, one short line each.
struct Heard final : coord::ChangeSink {
    std::vector<std::string> lines;
    void add(const char* what, BytesView path, Zxid zxid) {
        lines.push_back(std::string(what) + " " + Bytes(path) + " " +
                        std::to_string(zxid.counter()));
    }
    void on_created(BytesView path, Zxid zxid, BytesView) override { add("created", path, zxid); }
    void on_deleted(BytesView path, Zxid zxid, BytesView) override { add("deleted", path, zxid); }
    void on_data_changed(BytesView path, Zxid zxid, BytesView) override { add("data", path, zxid); }
    void on_children_changed(BytesView path, Zxid zxid, BytesView) override {
        add("children", path, zxid);
    }
};

inline Bytes open_body(std::uint64_t nonce, std::uint32_t timeout_ms) {
    Bytes body;
    Writer out(body);
    out.u64(nonce), out.u32(timeout_ms), out.u64(nonce * 3), out.u64(nonce * 5);
    return body;
}

inline void write_data(Writer& out, BytesView data) {  // FORMAT
    coord::is_null(data) ? out.u32(UINT32_MAX) : out.bytes(data);
}

// A ttl is written where it is not 0, whatever the mode.
inline Bytes create_body(BytesView path, BytesView data, CreateMode mode, std::int64_t ttl_ms = 0) {
    Bytes body;
    Writer out(body);
    out.bytes(path), write_data(out, data), out.i32(static_cast<std::int32_t>(mode));
    if (ttl_ms != 0) out.i64(ttl_ms);
    return body;
}

// Of any mode; a ttl is of a few dozen transactions.
inline Bytes random_create(coord::Rng& rng, BytesView path, BytesView data) {
    const auto mode = static_cast<CreateMode>(rng.below(7));
    const auto ttl_ms = static_cast<std::int64_t>(1 + rng.below(60));
    return create_body(path, data, mode, coord::has_ttl(mode) ? ttl_ms : 0);
}

inline Bytes reap_body(BytesView path, Zxid czxid) {
    Bytes body;
    Writer out(body);
    out.bytes(path), out.zxid(czxid);
    return body;
}

inline Bytes remove_body(BytesView path, std::int32_t version) {
    Bytes body;
    Writer out(body);
    out.bytes(path), out.i32(version);
    return body;
}

inline Bytes set_body(BytesView path, BytesView data, std::int32_t version) {
    Bytes body;
    Writer out(body);
    out.bytes(path), write_data(out, data), out.i32(version);
    return body;
}

// Of the parts that only a multi has.
inline Bytes condition_body(coord::Condition condition, BytesView path, std::uint64_t number = 0,
                            BytesView data = {}) {
    Bytes body;
    Writer out(body);
    out.bytes(path), out.u8(static_cast<std::uint8_t>(condition));
    if (condition == coord::Condition::data) {
        write_data(out, data);
    } else if (condition != coord::Condition::absent) {
        out.u64(number);
    }
    return body;
}

inline Bytes guard_body(BytesView path, Zxid czxid) { return reap_body(path, czxid); }

inline Bytes with_parents_body(BytesView path, BytesView data, CreateMode mode,
                               CreateMode parents = CreateMode::persistent,
                               std::int64_t ttl_ms = 0) {
    Bytes body(1, static_cast<char>(parents));
    return body.append(create_body(path, data, mode, ttl_ms));
}

inline Bytes take_over_body(BytesView path, BytesView data, SessionId earlier, std::uint64_t high,
                            std::uint64_t low, CreateMode mode = CreateMode::ephemeral) {
    Bytes body;
    Writer out(body);
    out.u64(earlier.value), out.u64(high), out.u64(low);
    return body.append(create_body(path, data, mode));
}

// Of a multi: its parts, each an operation and its body.
inline Bytes multi_body(const std::vector<std::pair<OpCode, Bytes>>& parts) {
    Bytes body;
    Writer out(body);
    out.u32(static_cast<std::uint32_t>(parts.size()));
    for (const auto& [op, part] : parts) {
        out.u8(static_cast<std::uint8_t>(op)), out.bytes(part);
    }
    return body;
}

// Of up to six parts on a few paths. Half of them fail at their last part, if not before.
inline Bytes random_multi(coord::Rng& rng) {
    std::vector<std::pair<OpCode, Bytes>> parts;
    const std::uint64_t count = rng.below(6);
    for (std::uint64_t i = 0; i < count; i++) {
        Bytes path;
        for (std::uint64_t k = 0; k <= rng.below(3); k++) {
            path += "/", path += static_cast<char>('a' + rng.below(8));
        }
        const Bytes bytes(rng.below(rng.chance(100) ? 2000 : 40), 'm');
        const BytesView value = rng.chance(200) ? coord::null_data : BytesView(bytes);
        switch (rng.below(5)) {
            case 0: parts.emplace_back(OpCode::remove, remove_body(path, -1)); break;
            case 1: parts.emplace_back(OpCode::set, set_body(path, value, -1)); break;
            case 2: parts.emplace_back(OpCode::check, remove_body("/", -1)); break;
            default: parts.emplace_back(OpCode::create, random_create(rng, path, value));
        }
    }
    if (rng.chance(500)) parts.emplace_back(OpCode::check, remove_body("/nothing", -1));
    return multi_body(parts);
}

// A machine and the numbers that a leader would give: epoch 1, counters from 1, time in steps.
struct Rig {
    Machine machine;
    Heard heard;
    std::uint64_t counter = 0;
    bool audits = true;  // after each transaction
    std::map<SessionId, std::uint64_t> cxids;

    explicit Rig(const Limits& limits = {}, std::uint64_t seed = 1) : machine(limits, seed) {}

    const Outcome* apply(SessionId session, std::uint64_t cxid, OpCode op, BytesView body,
                         std::uint64_t confirmed = 0) {
        counter += 1;
        Txn txn;
        txn.zxid = Zxid{1, counter};
        txn.previous = counter == 1 ? Zxid{} : Zxid{1, counter - 1};
        txn.time_ms = static_cast<std::int64_t>(1000 + counter);
        txn.session = session, txn.cxid = cxid, txn.confirmed = confirmed;
        txn.op = op, txn.body = body;
        const Outcome* const outcome = machine.apply(txn, heard);
        if (audits) machine.audit();
        return outcome;
    }
    SessionId open(std::uint64_t nonce, std::uint32_t timeout_ms = 5000) {
        const Outcome* const outcome =
            apply(SessionId{}, 0, OpCode::open_session, open_body(nonce, timeout_ms));
        REQUIRE(outcome != nullptr);
        REQUIRE(outcome->error == Errc::ok);
        return outcome->session;
    }
    // The next request of a session. RETURNS a copy: the machine's own is used again.
    Outcome next(SessionId session, OpCode op, BytesView body) {
        const Outcome* const outcome = apply(session, ++cxids[session], op, body);
        REQUIRE(outcome != nullptr);
        CHECK(outcome->cxid == cxids[session]);
        CHECK(outcome->zxid == Zxid{1, counter});
        CHECK(outcome->op == op);
        CHECK(outcome->session == session);
        return *outcome;
    }
    Outcome create(SessionId session, BytesView path, BytesView data = "",
                   CreateMode mode = CreateMode::persistent, std::int64_t ttl_ms = 0) {
        return next(session, OpCode::create, create_body(path, data, mode, ttl_ms));
    }
    // As a leader would number it.
    Errc reap(BytesView path, Zxid czxid) {
        const Outcome* const outcome =
            apply(SessionId{}, 0, OpCode::reap, reap_body(path, czxid));
        REQUIRE(outcome != nullptr);
        return outcome->error;
    }
    Outcome remove(SessionId session, BytesView path, std::int32_t version = -1) {
        return next(session, OpCode::remove, remove_body(path, version));
    }
    Outcome set(SessionId session, BytesView path, BytesView data, std::int32_t version = -1) {
        return next(session, OpCode::set, set_body(path, data, version));
    }
    Bytes saved() { return support::save(machine); }
    // The same for two machines in the same state, however they came there.
    std::vector<Bytes> records() { return support::sorted_records(saved()); }
};

}  // namespace machine
