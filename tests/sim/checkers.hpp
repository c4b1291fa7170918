// What a run of an ensemble must have in common with a history that ZooKeeper could have: a plain
// model of the state, and a checker that is told of everything that replicas apply and clients see.
// All checks are linear in the history, but for the looking up of a path or a zxid.
//
//   P1  writes are linearizable: one log, each answer is the model's, in real-time order
//   P2  nothing acknowledged or observed is lost
//   P3  no phantom: each entry is a request that was made, as it was made
//   P4  a session's reads equal the state at their zxid, which never falls within the session; all
//       parts of one read, that of one zxid
//   P5  a session's answers come in the order of its calls
//   P6  what is read after a sync is no older than the call of the sync; what is read as of a zxid
//       no older than that, and the newest no older than the call; and of some nodes, whose whole
//       history is kept, all calls have an order in which every answer is right: wgl.hpp
//   P7  a watch event comes before any answer that shows the change; P8 it is the first change
//   P9  an ephemeral node is there exactly while its session is
//   P10 a session does not expire while it is certainly alive, nor before its timeout
//   P11 fencing tokens rise; a holder's certain time ends before the next grant
//   P12 at most one leader for an epoch, who has everything committed; epochs never fall
//   P13 all replicas apply the same entries and have the same digest at the same zxid
//   P14 the same after a restart
//   P15 each request is executed once and answered once; a session that was local is opened once,
//       and for a write of it alone
//   P22 a container or a node with a ttl goes by itself when it is due, and nothing else does
//   P23 what is written under a guard is written while that very node is there; under the grants of
//       one lock, in the order of their tokens
//   P24 who may not read a node is shown nothing of it, and hears nothing; who may, all
//   P25 a stream has every change at and below its path after its position, in order, each once,
//       wherever it goes on; snapshot_needed only where the replica cannot have what is missing
//   P27 who is told that its session is over has not been executed; in doubt are only writes whose
//       session ended in what its replica has jumped over
//   P28 who observes has nothing in its log that is not committed, and never leads or votes
//   P29 the members change as was asked for, by who may, one change at a time
//   P30 only who leads hands over, and that has an end (random.cpp)
//   P31 a replica's recording, replayed, is that replica again (random.cpp)
#pragma once

#include "coord.hpp"

#include <algorithm>
#include <cstdio>
#include <set>
#include <unordered_map>

namespace sim {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::EventType;
using coord::OpCode;
using coord::SessionId;
using coord::Stat;
using coord::Time;
using coord::Txn;
using coord::WatchKind;
using coord::Zxid;

inline Bytes show(Zxid zxid) {
    return std::to_string(zxid.epoch()) + "." + std::to_string(zxid.counter());
}

inline bool same(const Stat& a, const Stat& b) {
    return a.czxid == b.czxid && a.mzxid == b.mzxid && a.ctime_ms == b.ctime_ms &&
           a.mtime_ms == b.mtime_ms && a.version == b.version && a.cversion == b.cversion &&
           a.aversion == b.aversion && a.ephemeral_owner == b.ephemeral_owner &&
           a.data_length == b.data_length && a.num_children == b.num_children && a.pzxid == b.pzxid;
}

inline Bytes show(SessionId id) { return show(Zxid{id.value}); }

inline Bytes show(const Stat& s) {
    return "{c " + show(s.czxid) + " m " + show(s.mzxid) + " p " + show(s.pzxid) + " ctime " +
           std::to_string(s.ctime_ms) + " mtime " + std::to_string(s.mtime_ms) + " v" +
           std::to_string(s.version) + " cv" + std::to_string(s.cversion) + " owner " +
           std::to_string(s.ephemeral_owner.value) + " length " + std::to_string(s.data_length) +
           " children " + std::to_string(s.num_children) + "}";
}

inline bool same(const std::vector<coord::Part>& a, const std::vector<coord::Part>& b) {
    const auto is_same = [](const coord::Part& one, const coord::Part& other) {
        return one.error == other.error && one.path == other.path && same(one.stat, other.stat);
    };
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), is_same);
}

inline const Bytes config_node = "/zookeeper/config";

// What a request comes to. A void one was executed before.
struct Answer {
    Zxid zxid;
    OpCode op = OpCode::create;
    Errc error = Errc::ok;
    Bytes path;
    Stat stat;
    SessionId session;
    bool is_void = false;
    std::vector<coord::Part> parts;  // of a multi
};

// Who a session is: schemes and ids. And what an ACL is made of, read apart from the engine.
using Who = std::vector<std::pair<Bytes, Bytes>>;
struct AclEntry {
    std::uint32_t permissions = 0;
    Bytes scheme;
    Bytes id;
};

inline std::vector<AclEntry> entries_of(BytesView acl) {
    std::vector<AclEntry> entries;
    coord::Reader in(acl);
    while (in.left() > 0) {
        const std::uint32_t permissions = in.u32();
        const Bytes scheme(in.bytes(SIZE_MAX));
        entries.push_back({permissions, scheme, Bytes(in.bytes(SIZE_MAX))});
    }
    return entries;
}

inline Bytes bytes_of(const std::vector<AclEntry>& entries) {
    Bytes acl;
    coord::Writer out(acl);
    for (const AclEntry& each : entries) {
        out.u32(each.permissions), out.bytes(each.scheme), out.bytes(each.id);
    }
    return acl;
}

// Of addresses it knows nothing.
inline bool allows(const Bytes& acl, const Who& who, std::uint32_t permissions) {
    if (acl.empty()) return true;
    for (const auto& each : who) {
        if (each.first == "super") return true;
    }
    for (const AclEntry& entry : entries_of(acl)) {
        const bool is_one =
            std::find(who.begin(), who.end(), std::make_pair(entry.scheme, entry.id)) != who.end();
        const bool gives = (entry.permissions & permissions) != 0;
        if (gives && (entry.scheme == "world" || is_one)) return true;
    }
    return false;
}

// What a node is to have where a session asks for that; empty where it is open.
inline Errc settle_acl(const Bytes& asked, const Who& who, Bytes& acl) {
    if (asked.empty()) return acl.clear(), Errc::ok;
    std::vector<AclEntry> all;
    const auto add = [&all](const AclEntry& one) {
        const auto is_it = [&one](const AclEntry& other) {
            return one.permissions == other.permissions && one.scheme == other.scheme &&
                   one.id == other.id;
        };
        if (std::none_of(all.begin(), all.end(), is_it)) all.push_back(one);
    };
    for (const AclEntry& entry : entries_of(asked)) {
        const bool stands_for_all = entry.scheme == "auth";
        bool is_any = !stands_for_all;
        if (!stands_for_all) add(entry);
        for (std::size_t i = 0; stands_for_all && i < who.size(); i++) {
            if (who[i].first == "super" || who[i].first == "ip") continue;
            is_any = true;
            add({entry.permissions, who[i].first, who[i].second});
        }
        if (!is_any) return Errc::invalid_acl;
    }
    acl = bytes_of(all);
    if (acl == bytes_of({{31, "world", "anyone"}})) acl.clear();
    return Errc::ok;
}

// As get_acl shows it.
inline Bytes shown_acl(const Bytes& acl, const Who& who) {
    std::vector<AclEntry> all = entries_of(acl);
    if (acl.empty()) all = {{31, "world", "anyone"}};
    for (AclEntry& each : all) {
        const bool is_hidden = each.scheme == "digest" && !allows(acl, who, 16);
        if (is_hidden) each.id = each.id.substr(0, each.id.find(':')) + ":x";
    }
    return bytes_of(all);
}

// A body of a transaction, read apart from the engine's own reading.
struct Fields {
    Bytes path;
    Bytes data;
    std::int32_t number = 0;  // mode or version
    std::uint64_t nonce = 0;
    std::uint32_t timeout_ms = 0;
    bool expired = false;
    bool is_null = false;  // the data
    std::int64_t ttl_ms = 0;
    Zxid czxid;  // of a reap, and a guard
    coord::Condition condition{};
    std::uint64_t compared = 0;   // of a condition
    coord::CreateMode parents{};  // of create_with_parents
    SessionId earlier;            // of take_over
    coord::SessionPassword password;
    bool was_local = false;  // of an open_session: the nonce is the id
    Bytes acl;   // of a create, where it has one, and of a set_acl
};

inline Fields fields_of(const Txn& txn) {
    Fields fields;
    coord::Reader in(txn.body);
    if (txn.op == OpCode::attach_session) {
        fields.nonce = in.u64();
    } else if (txn.op == OpCode::open_session) {
        fields.nonce = in.u64(), fields.timeout_ms = in.u32();
        fields.password.high = in.u64(), fields.password.low = in.u64();
        fields.was_local = in.left() > 0;
    } else if (txn.op == OpCode::close_session) {
        fields.expired = in.u8() == 1;
    } else if (txn.op == OpCode::multi || txn.op == OpCode::auth) {
        fields.data = Bytes(txn.body);
    } else if (txn.op == OpCode::set_acl) {
        fields.path = Bytes(in.bytes(SIZE_MAX)), fields.acl = Bytes(in.bytes(SIZE_MAX));
        fields.number = in.i32();
    } else if (txn.op == OpCode::reap) {
        fields.path = Bytes(in.bytes(SIZE_MAX));
        fields.czxid = in.zxid();
    } else if (txn.op == OpCode::guard) {
        fields.path = Bytes(in.bytes(SIZE_MAX));
        fields.czxid = in.zxid();
    } else if (txn.op != OpCode::admit && txn.op != OpCode::silence &&
               txn.op != OpCode::reconfig) {
        if (txn.op == OpCode::create_with_parents)
            fields.parents = static_cast<coord::CreateMode>(in.u8());
        if (txn.op == OpCode::take_over) {
            fields.earlier = SessionId{in.u64()};
            fields.password.high = in.u64(), fields.password.low = in.u64();
        }
        fields.path = Bytes(in.bytes(SIZE_MAX));
        bool has_data = txn.op != OpCode::remove && txn.op != OpCode::check &&
                        txn.op != OpCode::remove_all;
        if (txn.op == OpCode::check_that) {
            fields.condition = static_cast<coord::Condition>(in.u8());
            has_data = fields.condition == coord::Condition::data;
            if (!has_data && in.left() > 0) fields.compared = in.u64();
            if (!has_data) return fields;
        }
        coord::Reader null = in;
        fields.is_null = has_data && null.u32() == UINT32_MAX;
        if (fields.is_null) in = null;
        if (has_data && !fields.is_null) fields.data = Bytes(in.bytes(SIZE_MAX));
        if (txn.op == OpCode::check_that) return fields;
        fields.number = in.i32();
        const bool may_create = txn.op == OpCode::create || txn.op == OpCode::create_or_set ||
                                txn.op == OpCode::create_with_parents ||
                                txn.op == OpCode::take_over;
        const bool has_acl = may_create && (fields.number >> 16) == 1;
        if (has_acl) fields.number &= 0xFFFF, fields.acl = Bytes(in.bytes(SIZE_MAX));
        if (in.left() > 0) fields.ttl_ms = in.i64();
    }
    return fields;
}

// A multi's body, written apart from the engine's own writing.
inline Bytes body_of(const std::vector<coord::Op>& parts) {
    using coord::Condition;
    Bytes body;
    coord::Writer out(body);
    out.u32(static_cast<std::uint32_t>(parts.size()));
    for (const coord::Op& part : parts) {
        Bytes one;
        coord::Writer writer(one);
        const auto write_data = [&] {
            coord::is_null(part.data) ? writer.u32(UINT32_MAX) : writer.bytes(part.data);
        };
        if (part.code == OpCode::create_with_parents)
            writer.u8(static_cast<std::uint8_t>(part.parents));
        if (part.code == OpCode::take_over) {
            writer.u64(part.number);
            writer.u64(part.password.high), writer.u64(part.password.low);
        }
        writer.bytes(part.path);
        switch (part.code) {
            case OpCode::guard: writer.u64(part.number); break;
            case OpCode::check_that:
                writer.u8(static_cast<std::uint8_t>(part.condition));
                if (part.condition == Condition::data) write_data();
                if (part.condition != Condition::data && part.condition != Condition::absent)
                    writer.u64(part.number);
                break;
            case OpCode::check:
            case OpCode::remove:
            case OpCode::remove_all: writer.i32(part.version); break;
            case OpCode::set: write_data(), writer.i32(part.version); break;
            case OpCode::set_acl:
                writer.bytes(part.acl.bytes()), writer.i32(part.version);
                break;
            default:
                write_data();
                writer.i32(static_cast<std::int32_t>(part.mode) + (part.acl.empty() ? 0 : 65536));
                if (!part.acl.empty()) writer.bytes(part.acl.bytes());
                if (part.ttl != coord::Duration{}) writer.i64(part.ttl.ns / 1000000);
        }
        out.u8(static_cast<std::uint8_t>(part.code)), out.bytes(one);
    }
    return body;
}

// One life of a session at a replica: its opener's is the first, and each attach begins another.
// The quotas that runs set, by their text. Any other text is none, but for no bytes at all.
struct QuotaText {
    const char* text;
    std::int64_t count_hard, bytes_hard;  // -1: none
};
inline constexpr QuotaText quota_texts[] = {
    {"", -1, -1},
    {"count=1,bytes=1", -1, -1},
    {"countHardLimit=5", 5, -1},
    {"byteHardLimit=150", -1, 150},
    {"count=1,bytes=-1=;byteHardLimit=90;countHardLimit=3", 3, 90},
};
inline const QuotaText* quota_of(const Bytes& text) {
    for (const QuotaText& each : quota_texts) {
        if (text == each.text) return &each;
    }
    return nullptr;
}
inline Bytes quota_node(const Bytes& path, const char* name) {
    return "/zookeeper/quota" + path + "/zookeeper_" + name;
}
inline bool is_stats(const Bytes& path) {
    const Bytes name = "/zookeeper_stats";
    return path.compare(0, 17, "/zookeeper/quota/") == 0 && path.size() > name.size() &&
           path.compare(path.size() - name.size(), name.size(), name) == 0;
}

struct Holder {
    Holder(SessionId of, std::uint64_t number = 0) : session(of), holding(number) {}
    SessionId session;
    std::uint64_t holding;
    friend bool operator<(const Holder& a, const Holder& b) {
        return a.session != b.session ? a.session < b.session : a.holding < b.holding;
    }
};

// The state and all that it ever was, in ordered maps, written for being plain.
class Model {
public:
    struct Version {
        Zxid zxid;
        bool present = false;
        Stat stat;
        Bytes data;
        bool is_null = false;
        Bytes acl;
    };
    struct Change {
        Zxid zxid;
        EventType type = EventType::none;
        Bytes acl;  // of the node
    };
    // What watchers that stay hear of, in the order of the log.
    struct PathChange {
        Zxid zxid;
        EventType type = EventType::none;
        Bytes path;
        Bytes acl;
    };
    struct SessionState {
        bool open = false;
        std::uint64_t nonce = 0;
        std::uint32_t timeout_ms = 0;
        coord::SessionPassword password;
        std::uint64_t cxid = 0;
        std::set<Bytes> ephemerals;
        std::uint64_t holding() const { return cxid >> coord::cxid_bits; }
        std::vector<Zxid> held_since{Zxid{}};         // by each holder; not its opener
        std::vector<std::vector<Answer>> answers{1};  // of each holder's requests 1, 2, 3 ...
        Zxid closed_at;
        Time opened_applied;
        std::vector<std::pair<Zxid, Who>> identities{1};  // and since when
        const Who& who() const { return identities.back().second; }
    };

    Model() {
        const coord::Tree fresh;
        fresh.visit([this](const coord::NodeView& node) {
            Node& own = nodes_[Bytes(node.path)];
            own.present = true, size_ += 1;
            own.stat = node.stat;
            own.acl = Bytes(node.acl);
            own.creations = (node.stat.cversion + node.stat.num_children) / 2;
            if (node.path != "/") {
                Node& up = nodes_[Bytes(coord::parent_path(node.path))];
                up.children.insert(Bytes(coord::node_name(node.path)));
                up.child_log.push_back({Zxid{}, Bytes(coord::node_name(node.path)), true});
            }
            remember(own, Zxid{});
        });
    }

    // Who is in the ensemble, and while that changes who is to be.
    struct Member {
        bool votes = true;
        std::uint32_t weight = 1, group = 0;
        Bytes address;
        bool operator==(const Member& o) const {
            return votes == o.votes && weight == o.weight && group == o.group &&
                   address == o.address;
        }
    };
    using Members = std::map<std::uint32_t, Member>;
    const Members& members() const { return members_; }
    const Members& next_members() const { return next_; }
    bool is_joint() const { return !next_.empty(); }
    static Members read_members(coord::Reader& in) {
        Members all;
        for (std::uint32_t count = in.u32(); count > 0 && in.ok(); count--) {
            Member& member = all[in.u32()];
            member.votes = in.u8() == 1;
            member.weight = in.u32(), member.group = in.u32();
            member.address = Bytes(in.bytes(SIZE_MAX));
        }
        return in.ok() ? all : Members{};
    }
    // What is to come of what was asked for.
    Members members_after(BytesView asked) const {
        coord::Reader in(asked);
        (void)in.u8(), (void)in.u64();
        const Members joining = read_members(in);
        Members next = members_;
        for (std::uint32_t count = in.u32(); count > 0 && in.ok(); count--) next.erase(in.u32());
        const Members whole = read_members(in);
        if (!whole.empty()) next = whole;
        for (const auto& [id, member] : joining) next[id] = member;
        return next;
    }

    std::size_t removals_max = coord::Limits{}.removals_max;
    std::size_t list_max = coord::Limits{}.list_max;
    std::size_t sessions_max = coord::Limits{}.sessions_max;

    Zxid frontier() const { return frontier_; }
    const std::map<SessionId, SessionState>& sessions() const { return sessions_; }
    std::size_t size() const { return size_; }

    Answer apply(const Txn& txn) {
        frontier_ = txn.zxid, newest_ms_ = txn.time_ms, count_left_ = list_max;
        const Fields fields = fields_of(txn);
        Answer answer;
        answer.zxid = txn.zxid, answer.op = txn.op, answer.session = txn.session;
        if (txn.op == OpCode::open_session) return open(txn, fields, answer);
        Errc reconfigured = Errc::ok;
        if (txn.op == OpCode::reconfig) reconfigured = reconfig(txn);
        const bool by_itself = txn.op == OpCode::reconfig && txn.session == SessionId{};
        if (by_itself) answer.error = reconfigured;
        if (txn.op == OpCode::admit || txn.op == OpCode::reap || txn.op == OpCode::silence ||
            by_itself) {
            answer.session = SessionId{};
            if (txn.op == OpCode::reap) answer.error = reap(txn, fields);
            if (txn.op == OpCode::admit) answer.error = admit(txn);
            return answer;
        }
        const auto found = sessions_.find(txn.session);
        if (found == sessions_.end() || !found->second.open) {
            answer.error = Errc::session_expired;
            return answer;
        }
        SessionState& session = found->second;
        if (txn.op == OpCode::attach_session) {
            const std::uint64_t begin = (session.holding() + 1) << coord::cxid_bits;
            answer.is_void = begin == 0 || txn.cxid != begin;
            if (answer.is_void) return answer;
            session.cxid = begin, session.held_since.push_back(txn.zxid);
            session.answers.emplace_back();
            if (!session.who().empty()) session.identities.push_back({txn.zxid, {}});
            return answer;
        }
        const bool by_leader = txn.op == OpCode::close_session && txn.cxid == 0;
        answer.is_void = !by_leader && txn.cxid != session.cxid + 1;
        if (answer.is_void) return answer;
        if (!by_leader) session.cxid = txn.cxid;
        if (txn.op == OpCode::create) create(txn, fields, session, answer);
        if (txn.op == OpCode::remove) {
            answer.error = remove(txn.zxid, fields.path, fields.number, session.who());
        }
        if (txn.op == OpCode::set) set(txn, fields, session, answer);
        if (txn.op == OpCode::set_acl) set_acl(txn, fields, session, answer);
        if (txn.op == OpCode::auth) authenticate(txn, session);
        if (txn.op == OpCode::multi) multi(txn, session, answer);
        if (txn.op == OpCode::reconfig) answer.error = reconfigured;
        if (txn.op == OpCode::close_session) close(txn, session);
        if (!by_leader) session.answers.back().push_back(answer);
        return answer;
    }

    // What goes by itself, and would do so at that time.
    std::vector<Bytes> due(std::int64_t time_ms) const {
        std::vector<Bytes> paths;
        for (const auto& [path, node] : nodes_) {
            if (node.present && is_due(node, time_ms)) paths.push_back(path);
        }
        return paths;
    }
    // Whether what has been at that path, and was made then, goes by itself.
    bool went_by_itself(const Bytes& path, Zxid czxid) const {
        const auto found = nodes_.find(path);
        return found != nodes_.end() && found->second.mortals.count(czxid) == 1;
    }
    bool has_life(const Bytes& path, const coord::NodeLife& life) const {
        const auto found = nodes_.find(path);
        if (found == nodes_.end() || !found->second.present) return false;
        const Node& node = found->second;
        return (life.kind == coord::NodeKind::container) == node.is_container &&
               life.ttl_ms == node.ttl_ms && life.owner == node.stat.ephemeral_owner;
    }
    // Of the newest entry of the newest epoch.
    std::int64_t newest_ms() const { return newest_ms_; }

    // Who the session was at that point of the log, and what that lets it read.
    const Who& who_at(SessionId id, Zxid zxid) const {
        static const Who nobody;
        const auto found = sessions_.find(id);
        if (found == sessions_.end()) return nobody;
        const auto& all = found->second.identities;
        std::size_t i = all.size() - 1;
        while (i > 0 && all[i].first > zxid) i--;
        return all[i].second;
    }
    // Since when it is who it is; begins with 0.
    const std::vector<std::pair<Zxid, Who>>& identities(SessionId id) const {
        static const std::vector<std::pair<Zxid, Who>> none;
        const auto found = sessions_.find(id);
        return found == sessions_.end() ? none : found->second.identities;
    }
    bool may_read(SessionId id, const Bytes& acl, Zxid zxid) const {
        return acl.empty() || allows(acl, who_at(id, zxid), 1);
    }

    // The node at that point of the log; null: there never was one.
    const Version* at(const Bytes& path, Zxid zxid) const {
        const std::vector<Version>* const found = versions(path);
        if (found == nullptr || found->empty()) return nullptr;
        const std::vector<Version>& all = *found;
        if (all.back().zxid <= zxid) return &all.back();
        const Version* newest = nullptr;
        const auto after = std::upper_bound(all.begin(), all.end(), zxid,
                                            [](Zxid z, const Version& v) { return z < v.zxid; });
        if (after != all.begin()) newest = &*(after - 1);
        return newest;
    }

    const std::vector<Version>* versions(const Bytes& path) const {
        const auto found = nodes_.find(path);
        return found == nodes_.end() ? nullptr : &found->second.versions;
    }

    // The children at that point of the log: those of now, with what has changed since taken back,
    // in `then`. Reads are of the newest states, histories are long.
    const std::set<Bytes>& children_at(const Bytes& path, Zxid zxid, std::set<Bytes>& then) const {
        const auto node = nodes_.find(path);
        if (node == nodes_.end()) return then;
        const std::vector<ChildChange>& log = node->second.child_log;
        if (log.empty() || log.back().zxid <= zxid) return node->second.children;
        then = node->second.children;
        for (auto each = log.rbegin(); each != log.rend() && each->zxid > zxid; ++each) {
            if (each->added) then.erase(each->name);
            if (!each->added) then.insert(each->name);
        }
        return then;
    }
    bool had_children(const Bytes& path, Zxid zxid, const std::vector<Bytes>& names) const {
        std::set<Bytes> then;
        const std::set<Bytes>& all = children_at(path, zxid, then);
        return std::equal(all.begin(), all.end(), names.begin(), names.end());
    }
    std::size_t descendants_at(const Bytes& path, Zxid zxid) const {
        std::size_t count = 0;
        for (auto each = nodes_.upper_bound(path + "/"); each != nodes_.end(); ++each) {
            if (each->first.compare(0, path.size() + 1, path + "/") != 0) break;
            const Version* const then = at(each->first, zxid);
            if (then != nullptr && then->present) count += 1;
        }
        return count;
    }

    // What watchers of that kind hear of. It stays where it is, and grows.
    const std::vector<Change>& changes(WatchKind kind, const Bytes& path) {
        Node& node = nodes_[path];
        return kind == WatchKind::data ? node.data_changes : node.child_changes;
    }
    const std::vector<PathChange>& all_changes() const { return all_changes_; }
    // The place of the first of them after `after`.
    std::size_t first_change(Zxid after) const {
        const auto place =
            std::upper_bound(all_changes_.begin(), all_changes_.end(), after,
                             [](Zxid z, const PathChange& c) { return z < c.zxid; });
        return static_cast<std::size_t>(place - all_changes_.begin());
    }
    // The first change after `after`, or null.
    static const Change* first_change(const std::vector<Change>& all, Zxid after) {
        if (all.empty() || all.back().zxid <= after) return nullptr;
        return &*std::upper_bound(all.begin(), all.end(), after,
                                  [](Zxid z, const Change& c) { return z < c.zxid; });
    }

private:
    struct ChildChange {
        Zxid zxid;
        Bytes name;
        bool added = false;
    };
    // What is at a path, or was, or is only asked for; and all that it ever was.
    struct Node {
        bool present = false;
        Stat stat;
        Bytes data;
        bool is_null = false;
        Bytes acl;
        std::int64_t creations = 0;
        bool is_container = false;
        std::int64_t ttl_ms = 0;
        std::set<Zxid> mortals;  // czxids of those that go by themselves, of all that were here
        std::set<Bytes> children;
        std::vector<Version> versions;
        std::vector<ChildChange> child_log;
        std::vector<Change> data_changes;
        std::vector<Change> child_changes;
    };

    // All of them in order, with an index beside: most are looked for by their path.
    class Nodes {
    public:
        using Map = std::map<Bytes, Node>;
        Nodes() = default;
        Nodes(const Nodes& other) : map_(other.map_) {  // whose index is into its own map
            for (auto each = map_.begin(); each != map_.end(); ++each) {
                index_.emplace(each->first, each);
            }
        }
        Nodes(Nodes&&) = default;
        Nodes& operator=(Nodes other) {
            map_.swap(other.map_), index_.swap(other.index_);
            return *this;
        }
        Map::const_iterator begin() const { return map_.begin(); }
        Map::const_iterator end() const { return map_.end(); }
        Map::iterator end() { return map_.end(); }
        Map::const_iterator lower_bound(const Bytes& path) const { return map_.lower_bound(path); }
        Map::const_iterator upper_bound(const Bytes& path) const { return map_.upper_bound(path); }
        Map::iterator find(BytesView path) { return place(path, map_.end()); }
        Map::const_iterator find(BytesView path) const {
            return place<Map::const_iterator>(path, map_.end());
        }
        Node& operator[](const Bytes& path) {
            const auto found = find(path);
            if (found != map_.end()) return found->second;
            const auto made = map_.emplace(path, Node{}).first;
            index_.emplace(path, made);
            return made->second;
        }

    private:
        template <class Iterator>
        Iterator place(BytesView path, Iterator none) const {
            key_.assign(path);
            const auto found = index_.find(key_);
            return found == index_.end() ? none : Iterator(found->second);
        }
        Map map_;
        std::unordered_map<Bytes, Map::iterator> index_;
        mutable Bytes key_;
    };

    Answer& open(const Txn& txn, const Fields& fields, Answer& answer) {
        const auto known = nonces_.find(fields.nonce);
        if (known != nonces_.end()) {
            answer.session = known->second;
            return answer;
        }
        const auto is_open = [](const auto& each) { return each.second.open; };
        const auto open = std::count_if(sessions_.begin(), sessions_.end(), is_open);
        if (static_cast<std::size_t>(open) >= sessions_max) {
            answer.error = Errc::too_many;
            return answer;
        }
        answer.session = SessionId{fields.was_local ? fields.nonce : txn.zxid.value};
        SessionState& session = sessions_[answer.session];
        session.open = true;
        session.nonce = fields.nonce, session.timeout_ms = fields.timeout_ms;
        session.password = fields.password;
        nonces_[fields.nonce] = answer.session;
        return answer;
    }

    void close(const Txn& txn, SessionState& session) {
        const std::set<Bytes> ephemerals = session.ephemerals;
        for (const Bytes& path : ephemerals) (void)remove(txn.zxid, path, -1, all_powerful());
        session.open = false;
        session.closed_at = txn.zxid;
        nonces_.erase(session.nonce);
    }

    static bool is_due(const Node& node, std::int64_t time_ms) {
        if (!node.children.empty()) return false;
        if (node.is_container) return node.creations > 0;
        return node.ttl_ms > 0 && time_ms - node.stat.mtime_ms > node.ttl_ms;
    }
    Errc reap(const Txn& txn, const Fields& fields) {
        const auto found = nodes_.find(fields.path);
        if (found == nodes_.end() || !found->second.present) return Errc::no_node;
        const Node& node = found->second;
        if (node.stat.czxid != fields.czxid) return Errc::no_node;
        const bool is_mortal = node.is_container || node.ttl_ms > 0;
        if (is_mortal && !node.children.empty()) return Errc::not_empty;
        if (!is_due(node, txn.time_ms)) return Errc::bad_version;
        return remove(txn.zxid, fields.path, coord::any_version, all_powerful());
    }
    static Who all_powerful() { return {{"super", ""}}; }

    // Who votes, as a node says it: that changes where somebody comes who was not there.
    Errc admit(const Txn& txn) {
        coord::Reader in(txn.body);
        const std::uint32_t count = in.u32();
        if (in.left() != count * std::size_t{12}) return Errc::marshalling_error;
        Members grown = members_;
        bool is_known = true;
        for (std::uint32_t i = 0; i < count; i++) {
            const std::uint32_t id = in.u32();
            (void)in.u64();
            const bool votes = has_voter(grown, id) || has_voter(next_, id);
            is_known = is_known && votes;
            if (!votes) grown[id] = Member{};
        }
        if (is_known) return Errc::ok;
        if (is_joint() || !may_be(grown, {})) return Errc::marshalling_error;
        members_ = grown;
        write_config(txn);
        return Errc::ok;
    }
    static bool has_voter(const Members& members, std::uint32_t id) {
        const auto found = members.find(id);
        return found != members.end() && found->second.votes;
    }
    // Whether they can be the members after those.
    static bool may_be(const Members& next, const Members& before) {
        std::size_t seats = 0;
        std::uint64_t weight = 0;
        for (const auto& [id, member] : next) {
            const auto was = before.find(id);
            const bool is_new = was == before.end() || !was->second.votes ||
                                was->second.weight != member.weight ||
                                was->second.group != member.group;
            seats += member.votes && is_new ? 1u : 0u;
            weight += member.votes ? member.weight : 0u;
        }
        for (const auto& [id, member] : before) seats += member.votes ? 1u : 0u;
        return weight > 0 && seats <= 63;
    }

    // 2 both sets, 3 the next alone, 4 refused.
    Errc reconfig(const Txn& txn) {
        coord::Reader in(txn.body);
        const std::uint8_t step = in.u8();
        if (step == 4) return static_cast<Errc>(in.i32());
        if (step == 3 && is_joint()) {
            members_ = next_, next_.clear();
            write_config(txn);
            return Errc::ok;
        }
        if (step != 2 || is_joint() || members_.empty()) return Errc::marshalling_error;
        const Members next = read_members(in);
        if (!may_be(next, members_)) return Errc::marshalling_error;
        next_ = next;
        return Errc::ok;
    }

    void write_config(const Txn& txn) {
        Node& node = nodes_[config_node];
        node.data.clear(), node.is_null = false;
        std::map<std::uint32_t, Bytes> groups;
        Bytes weights;
        for (const auto& [id, member] : members_) {
            node.data += "server." + std::to_string(id) + "=" + member.address +
                         (member.address.empty() ? "" : ":") +
                         (member.votes ? "participant\n" : "observer\n");
            if (!member.votes) continue;
            Bytes& group = groups[member.group];
            group += (group.empty() ? "" : ":") + std::to_string(id);
            if (member.weight == 1) continue;
            weights += "weight." + std::to_string(id) + "=" + std::to_string(member.weight) + "\n";
        }
        if (groups.size() > 1 || !weights.empty()) {
            for (const auto& [group, ids] : groups) {
                node.data += "group." + std::to_string(group) + "=" + ids + "\n";
            }
            node.data += weights;
        }
        char version[32];
        std::snprintf(version, sizeof version, "version=%llx",
                      static_cast<unsigned long long>(txn.zxid.value));
        node.data += version;
        node.stat.mzxid = txn.zxid, node.stat.mtime_ms = txn.time_ms;
        node.stat.version += 1;
        node.stat.data_length = static_cast<std::int32_t>(node.data.size());
        all_changes_.push_back({txn.zxid, EventType::data_changed, config_node, node.acl});
        changed(node, txn.zxid, EventType::data_changed);
    }

    static void authenticate(const Txn& txn, SessionState& session) {
        Who who = session.who();
        for (const AclEntry& each : entries_of(txn.body)) {
            const auto one = std::make_pair(each.scheme, each.id);
            if (std::find(who.begin(), who.end(), one) == who.end()) who.push_back(one);
        }
        session.identities.push_back({txn.zxid, who});
    }

    void set_acl(const Txn& txn, const Fields& fields, const SessionState& session,
                 Answer& answer) {
        Bytes acl;
        answer.error = settle_acl(fields.acl, session.who(), acl);
        if (answer.error != Errc::ok) return;
        const auto found = nodes_.find(fields.path);
        answer.error = Errc::no_node;
        if (found == nodes_.end() || !found->second.present) return;
        Node& node = found->second;
        answer.error = Errc::no_auth;
        if (!allows(node.acl, session.who(), 16)) return;
        answer.error = Errc::bad_version;
        if (fields.number != coord::any_version && fields.number != node.stat.aversion) return;
        answer.error = Errc::ok;
        node.acl = acl, node.stat.aversion += 1;
        answer.stat = node.stat;
        remember(node, txn.zxid);
    }

    void create(const Txn& txn, const Fields& fields, SessionState& session, Answer& answer) {
        const auto mode = static_cast<coord::CreateMode>(fields.number);
        Bytes acl;
        answer.error = settle_acl(fields.acl, session.who(), acl);
        if (answer.error != Errc::ok) return;
        const auto found = nodes_.find(coord::parent_path(fields.path));
        answer.error = Errc::no_node;
        if (found == nodes_.end() || !found->second.present) return;
        Node& parent = found->second;
        answer.error = Errc::no_auth;
        if (!allows(parent.acl, session.who(), 4)) return;
        Bytes path = fields.path;
        if (coord::is_sequential(mode)) {
            char digits[32];
            std::snprintf(digits, sizeof digits, "%010lld",
                          static_cast<long long>(parent.creations));
            path += digits;
        }
        Node& node = nodes_[path];
        answer.error = Errc::node_exists;
        if (node.present) return;
        answer.error = Errc::no_children_for_ephemerals;
        if (parent.stat.ephemeral_owner != SessionId{}) return;
        Trials none;
        const auto more = static_cast<std::int64_t>(fields.data.size());
        answer.error = try_quota(none, path, more, 1);
        if (answer.error == Errc::ok) answer.error = try_begin(none, path, fields);
        if (answer.error != Errc::ok) return;
        node.present = true, size_ += 1;
        node.creations = 0;
        node.acl = acl;
        node.is_container = mode == coord::CreateMode::container;
        node.ttl_ms = fields.ttl_ms;
        if (node.is_container || node.ttl_ms > 0) node.mortals.insert(txn.zxid);
        node.data = fields.data, node.is_null = fields.is_null;
        node.stat = Stat{};
        node.stat.czxid = node.stat.mzxid = node.stat.pzxid = txn.zxid;
        node.stat.ctime_ms = node.stat.mtime_ms = txn.time_ms;
        node.stat.data_length = static_cast<std::int32_t>(fields.data.size());
        if (coord::is_ephemeral(mode)) {
            node.stat.ephemeral_owner = txn.session;
            session.ephemerals.insert(path);
        }
        parent.creations += 1;
        all_changes_.push_back({txn.zxid, EventType::created, path, node.acl});
        changed(node, txn.zxid, EventType::created);
        child_changed(parent, path, txn.zxid, true);
        if (is_limits(path)) limits_.insert(path);
        tell_quotas(txn.zxid);
        answer.path = path, answer.stat = node.stat;
    }

    Errc remove(Zxid zxid, const Bytes& path, std::int32_t version, const Who& who) {
        const auto above = nodes_.find(coord::parent_path(path));
        if (above == nodes_.end() || !above->second.present) return Errc::no_node;
        if (!allows(above->second.acl, who, 8)) return Errc::no_auth;
        const auto found = nodes_.find(path);
        if (found == nodes_.end() || !found->second.present) return Errc::no_node;
        Node& node = found->second;
        if (version != coord::any_version && version != node.stat.version) return Errc::bad_version;
        if (!node.children.empty()) return Errc::not_empty;
        node.present = false, size_ -= 1;
        if (node.stat.ephemeral_owner != SessionId{}) {
            sessions_[node.stat.ephemeral_owner].ephemerals.erase(path);
        }
        all_changes_.push_back({zxid, EventType::deleted, path, node.acl});
        changed(node, zxid, EventType::deleted);
        node.child_changes.push_back({zxid, EventType::deleted, node.acl});
        child_changed(above->second, path, zxid, false);
        tell_quotas(zxid);
        return Errc::ok;
    }

    void set(const Txn& txn, const Fields& fields, const SessionState& session, Answer& answer) {
        const auto found = nodes_.find(fields.path);
        answer.error = Errc::no_node;
        if (found == nodes_.end() || !found->second.present) return;
        Node& node = found->second;
        answer.error = Errc::no_auth;
        if (!allows(node.acl, session.who(), 2)) return;
        answer.error = Errc::bad_arguments;
        if (fields.path == config_node) return;
        Trials none;
        const auto more = static_cast<std::int64_t>(fields.data.size()) - node.stat.data_length;
        answer.error = try_quota(none, fields.path, more, 0);
        if (answer.error != Errc::ok) return;
        answer.error = Errc::bad_version;
        if (fields.number != coord::any_version && fields.number != node.stat.version) return;
        answer.error = try_begin(none, fields.path, fields);
        if (answer.error != Errc::ok) return;
        node.data = fields.data, node.is_null = fields.is_null;
        node.stat.mzxid = txn.zxid, node.stat.mtime_ms = txn.time_ms;
        node.stat.version += 1;
        node.stat.data_length = static_cast<std::int32_t>(fields.data.size());
        all_changes_.push_back({txn.zxid, EventType::data_changed, fields.path, node.acl});
        changed(node, txn.zxid, EventType::data_changed);
        tell_quotas(txn.zxid);
        answer.stat = node.stat;
    }

    // What a multi is tried on first, so that nothing has to be taken back.
    struct Trial {
        bool present = false;
        SessionId owner;
        std::int64_t creations = 0;
        std::int32_t version = 0;
        std::int32_t children = 0;
        Zxid czxid{};
        Bytes data{};
        bool is_null = false;
        std::int32_t aversion = 0;
        Bytes acl{};
    };
    using Trials = std::map<Bytes, Trial>;
    Trial& trial_of(Trials& trials, const Bytes& path) const {
        const auto tried = trials.find(path);
        if (tried != trials.end()) return tried->second;
        Trial& trial = trials[path];
        const auto found = nodes_.find(path);
        if (found == nodes_.end() || !found->second.present) return trial;
        const Stat& stat = found->second.stat;
        const Node& node = found->second;
        trial = {true,         stat.ephemeral_owner, node.creations, stat.version,
                 stat.num_children, stat.czxid,      node.data,      node.is_null,
                 stat.aversion, node.acl};
        return trial;
    }
    // Quotas, counted anew each time from what is there, as tried.
    static bool is_limits(const Bytes& path) {
        const BytesView name = "/zookeeper_limits";
        return path.compare(0, 17, "/zookeeper/quota/") == 0 && path.size() > 16 + name.size() &&
               path.compare(path.size() - name.size(), name.size(), name) == 0;
    }
    const QuotaText* quota_on(Trials& trials, const Bytes& path) const {
        if (path.compare(0, 10, "/zookeeper") == 0) return nullptr;  // no other name begins so
        const Bytes place = quota_node(path, "limits");
        if (limits_.count(place) == 0 && trials.count(place) == 0) return nullptr;
        const Trial& limits = trial_of(trials, place);
        return limits.present && !limits.is_null ? quota_of(limits.data) : nullptr;
    }
    Bytes quota_above(Trials& trials, const Bytes& path) const {
        if (limits_.empty() && trials.empty()) return {};  // none ever was
        for (Bytes at = path; at.size() > 1; at = Bytes(coord::parent_path(at))) {
            if (quota_on(trials, at) != nullptr) return at;
        }
        return {};
    }
    std::pair<std::int64_t, std::int64_t> counted(Trials& trials, const Bytes& quota) const {
        std::int64_t count = 0, bytes = 0;
        for (const Bytes& path : tried_below(trials, quota)) {
            if (quota_above(trials, path) != quota) continue;
            count += 1, bytes += static_cast<std::int64_t>(trial_of(trials, path).data.size());
        }
        return {count, bytes};
    }
    Errc try_quota(Trials& trials, const Bytes& path, std::int64_t bytes,
                   std::int64_t nodes) const {
        const Bytes quota = quota_above(trials, path);
        if (quota.empty()) return Errc::ok;
        const QuotaText& limits = *quota_on(trials, quota);
        const auto [count_now, bytes_now] = counted(trials, quota);
        const bool many = nodes != 0 && limits.count_hard >= 0 &&
                          count_now + nodes > limits.count_hard;
        const bool large = bytes != 0 && limits.bytes_hard >= 0 &&
                           bytes_now + bytes > limits.bytes_hard;
        return many || large ? Errc::quota_exceeded : Errc::ok;
    }
    // A quota that begins is counted at once; all those of one transaction have one bound.
    Errc try_begin(Trials& trials, const Bytes& path, const Fields& fields) const {
        if (!is_limits(path) || fields.is_null || quota_of(fields.data) == nullptr) return Errc::ok;
        const Bytes quota = path.substr(16, path.size() - 16 - 17);
        const bool is_none = quota.compare(0, 10, "/zookeeper") == 0;
        if (is_none || quota_on(trials, quota) != nullptr) return Errc::ok;
        const std::size_t size = tried_below(trials, quota).size();
        if (size > count_left_ + 1) return Errc::too_large;
        count_left_ -= (std::min)(count_left_, size);
        return Errc::ok;
    }
    void tell_quotas(Zxid zxid) {
        Trials none;
        for (const Bytes& place : limits_) {
            const Bytes quota = place.substr(16, place.size() - 16 - 17);
            const auto found = nodes_.find(quota_node(quota, "stats"));
            if (found == nodes_.end() || !found->second.present) continue;
            if (quota_on(none, quota) == nullptr) continue;
            const auto [count, bytes] = counted(none, quota);
            Node& stats = found->second;
            const Bytes text = "count=" + std::to_string(count) + ",bytes=" + std::to_string(bytes);
            if (stats.data == text && !stats.is_null) continue;
            stats.data = text, stats.is_null = false;
            stats.stat.data_length = static_cast<std::int32_t>(text.size());
            remember(stats, zxid);
        }
    }

    Errc try_create(Trials& trials, const Fields& fields, SessionId by, const Who& who) const {
        Bytes acl;
        const Errc settled = settle_acl(fields.acl, who, acl);
        if (settled != Errc::ok) return settled;
        Trial& parent = trial_of(trials, Bytes(coord::parent_path(fields.path)));
        const auto mode = static_cast<coord::CreateMode>(fields.number);
        if (!parent.present) return Errc::no_node;
        if (!allows(parent.acl, who, 4)) return Errc::no_auth;
        Bytes path = fields.path;
        if (coord::is_sequential(mode)) {
            Bytes digits = std::to_string(parent.creations);
            path += Bytes(digits.size() < 10 ? 10 - digits.size() : 0, '0') + digits;
        }
        Trial& node = trial_of(trials, path);
        if (node.present) return Errc::node_exists;
        if (parent.owner != SessionId{}) return Errc::no_children_for_ephemerals;
        const auto more = static_cast<std::int64_t>(fields.data.size());
        Errc error = try_quota(trials, path, more, 1);
        if (error == Errc::ok) error = try_begin(trials, path, fields);
        if (error != Errc::ok) return error;
        node = {true, coord::is_ephemeral(mode) ? by : SessionId{}, 0, 0, 0, frontier_,
                fields.data, fields.is_null, 0, acl};
        parent.creations += 1, parent.children += 1;
        return Errc::ok;
    }
    void try_remove(Trials& trials, const Bytes& path) const {
        trial_of(trials, path).present = false;
        trial_of(trials, Bytes(coord::parent_path(path))).children -= 1;
    }
    static void try_set(Trial& node, const Fields& fields) {
        node.version += 1;
        node.data = fields.data, node.is_null = fields.is_null;
    }
    static Errc holds(const Trial& node, const Fields& fields, const Who& who) {
        using coord::Condition;
        const Condition condition = fields.condition;
        if (condition == Condition::absent) return node.present ? Errc::node_exists : Errc::ok;
        if (!node.present) return Errc::no_node;
        if (!allows(node.acl, who, 1)) return Errc::no_auth;
        const bool right =
            condition == Condition::czxid   ? node.czxid == Zxid{fields.compared}
            : condition == Condition::owner ? node.owner == SessionId{fields.compared}
            : condition == Condition::children
                ? static_cast<std::uint64_t>(node.children) == fields.compared
                : node.data == fields.data && node.is_null == fields.is_null;
        return right ? Errc::ok : Errc::condition_failed;
    }
    // What is there of a path and below it, as tried.
    std::set<Bytes> tried_below(const Trials& trials, const Bytes& top) const {
        const auto is_in = [&](const Bytes& path) {
            return path == top || path.compare(0, top.size() + 1, top + "/") == 0;
        };
        std::set<Bytes> all;
        for (auto each = nodes_.lower_bound(top); each != nodes_.end(); ++each) {
            if (each->first.compare(0, top.size(), top) != 0) break;
            if (is_in(each->first) && each->second.present) all.insert(each->first);
        }
        for (const auto& [path, trial] : trials) {
            if (is_in(path)) trial.present ? (void)all.insert(path) : (void)all.erase(path);
        }
        return all;
    }
    bool may_remove(Trials& trials, const Bytes& path, const Who& who) const {
        return allows(trial_of(trials, Bytes(coord::parent_path(path))).acl, who, 8);
    }
    Errc try_take_over(Trials& trials, const Fields& fields, SessionId by, const Who& who) const {
        const Trial& node = trial_of(trials, fields.path);
        const bool is_theirs = node.present && node.owner != SessionId{} &&
                               node.owner == fields.earlier;
        if (is_theirs) {
            const coord::SessionPassword& right = sessions_.at(node.owner).password;
            const bool is_known = right.high == fields.password.high &&
                                  right.low == fields.password.low;
            if (!is_known) return Errc::auth_failed;
            if (!may_remove(trials, fields.path, who)) return Errc::no_auth;
            try_remove(trials, fields.path);
        }
        return try_create(trials, fields, by, who);
    }
    static std::vector<Bytes> above(const Bytes& path) {
        std::vector<Bytes> all;
        for (std::size_t i = 1; i < path.size(); i++) {
            if (path[i] == '/') all.push_back(path.substr(0, i));
        }
        return all;
    }
    Errc try_with_parents(Trials& trials, const Fields& fields, SessionId by,
                          const Who& who) const {
        for (const Bytes& path : above(fields.path)) {
            if (trial_of(trials, path).present) continue;
            Fields parent;
            parent.path = path, parent.number = static_cast<std::int32_t>(fields.parents);
            const Errc error = try_create(trials, parent, by, who);
            if (error != Errc::ok) return error;
        }
        return try_create(trials, fields, by, who);
    }
    Errc try_part(Trials& trials, const Txn& part, const Who& who, std::size_t& removals) const {
        const Fields fields = fields_of(part);
        const SessionId by = part.session;
        if (part.op == OpCode::create) return try_create(trials, fields, by, who);
        if (part.op == OpCode::create_with_parents) {
            return try_with_parents(trials, fields, by, who);
        }
        if (part.op == OpCode::take_over) return try_take_over(trials, fields, by, who);
        Bytes acl;
        const Errc settled =
            part.op == OpCode::set_acl ? settle_acl(fields.acl, who, acl) : Errc::ok;
        if (settled != Errc::ok) return settled;
        Trial& node = trial_of(trials, fields.path);
        if (part.op == OpCode::check_that) return holds(node, fields, who);
        if (part.op == OpCode::guard) {
            return node.present && node.czxid == fields.czxid ? Errc::ok : Errc::guard_lost;
        }
        const bool is_set = part.op == OpCode::set || part.op == OpCode::create_or_set;
        if (part.op == OpCode::create_or_set && !node.present) {
            return try_create(trials, fields, by, who);
        }
        if (part.op == OpCode::remove) {
            const Trial& above = trial_of(trials, Bytes(coord::parent_path(fields.path)));
            if (!above.present) return Errc::no_node;
            if (!allows(above.acl, who, 8)) return Errc::no_auth;
        }
        if (!node.present) return Errc::no_node;
        const std::uint32_t wanted = is_set                         ? 2
                                     : part.op == OpCode::set_acl ? 16
                                     : part.op == OpCode::check   ? 1
                                                                  : 0;
        if (wanted != 0 && !allows(node.acl, who, wanted)) return Errc::no_auth;
        if (is_set && fields.path == config_node) return Errc::bad_arguments;
        if (is_set) {
            const auto more = static_cast<std::int64_t>(fields.data.size()) -
                              static_cast<std::int64_t>(node.data.size());
            const Errc error = try_quota(trials, fields.path, more, 0);
            if (error != Errc::ok) return error;
        }
        if (part.op == OpCode::create_or_set) {
            const Errc error = try_begin(trials, fields.path, fields);
            if (error == Errc::ok) try_set(node, fields);
            return error;
        }
        const bool is_whole = part.op == OpCode::remove_all;
        if (is_whole && !may_remove(trials, fields.path, who)) return Errc::no_auth;
        const bool any = fields.number == coord::any_version;
        const std::int32_t is = part.op == OpCode::set_acl ? node.aversion : node.version;
        if (!any && fields.number != is) return Errc::bad_version;
        if (part.op == OpCode::set) {
            const Errc error = try_begin(trials, fields.path, fields);
            if (error != Errc::ok) return error;
            try_set(node, fields);
        }
        if (part.op == OpCode::set_acl) node.aversion += 1, node.acl = acl;
        if (is_whole) {
            const std::set<Bytes> all = tried_below(trials, fields.path);
            if (all.size() > removals) return Errc::too_large;
            removals -= all.size();
            for (const Bytes& path : all) {
                if (!may_remove(trials, path, who)) return Errc::no_auth;
            }
            for (const Bytes& path : all) try_remove(trials, path);
        }
        if (part.op != OpCode::remove) return Errc::ok;
        if (node.children > 0) return Errc::not_empty;
        try_remove(trials, fields.path);
        return Errc::ok;
    }

    // What try_part has found good.
    void do_part(const Txn& part, SessionState& session, Answer& one) {
        const Fields fields = fields_of(part);
        const auto is_there = [this](const Bytes& path) {
            const auto found = nodes_.find(path);
            return found != nodes_.end() && found->second.present;
        };
        switch (part.op) {
            case OpCode::set: return set(part, fields, session, one);
            case OpCode::set_acl: return set_acl(part, fields, session, one);
            case OpCode::remove:
                one.error = remove(part.zxid, fields.path, fields.number, session.who());
                return;
            case OpCode::check: one.stat = nodes_[fields.path].stat; return;
            case OpCode::check_that:
                if (fields.condition != coord::Condition::absent)
                    one.stat = nodes_[fields.path].stat;
                return;
            case OpCode::guard: return;
            case OpCode::remove_all: return remove_all(part.zxid, fields.path, session);
            case OpCode::create_or_set:
                if (!is_there(fields.path)) break;
                {
                    Fields any = fields;
                    any.number = coord::any_version;
                    set(part, any, session, one);
                }
                one.path = fields.path;
                return;
            case OpCode::take_over:
                if (is_there(fields.path)) {
                    (void)remove(part.zxid, fields.path, -1, session.who());
                }
                break;
            case OpCode::create_with_parents:
                for (const Bytes& path : above(fields.path)) {
                    Fields parent;
                    parent.path = path, parent.number = static_cast<std::int32_t>(fields.parents);
                    Answer made;
                    if (!is_there(path)) create(part, parent, session, made);
                }
                break;
            default: break;
        }
        create(part, fields, session, one);
    }

    // The last of a listing first.
    void remove_all(Zxid zxid, const Bytes& top, const SessionState& session) {
        std::vector<Bytes> listed{top}, rest{top};
        listed.clear();
        while (!rest.empty()) {
            const Bytes path = rest.back();
            rest.pop_back();
            listed.push_back(path);
            const std::set<Bytes>& names = nodes_[path].children;
            for (auto name = names.rbegin(); name != names.rend(); ++name)
                rest.push_back(path + "/" + *name);
        }
        for (; !listed.empty(); listed.pop_back()) {
            (void)remove(zxid, listed.back(), -1, session.who());
        }
    }

    void multi(const Txn& txn, SessionState& session, Answer& answer) {
        std::vector<Txn> parts;
        coord::Reader in(txn.body);
        for (std::uint32_t left = in.u32(); left > 0; left--) {
            parts.push_back(txn);
            parts.back().op = static_cast<OpCode>(in.u8());
            parts.back().body = in.bytes(SIZE_MAX);
        }
        Trials trials;
        std::size_t removals = removals_max;
        for (const Txn& part : parts) {
            const bool is_late = answer.error != Errc::ok;
            const Errc error =
                is_late ? Errc::runtime_inconsistency
                        : try_part(trials, part, session.who(), removals);
            answer.parts.push_back({error, {}, {}});
            if (!is_late) answer.error = error;
        }
        count_left_ = list_max;  // what was tried is done
        for (std::size_t i = 0; i < parts.size() && answer.error == Errc::ok; i++) {
            Answer one;
            do_part(parts[i], session, one);
            answer.parts[i] = {one.error, one.path, one.stat};
        }
    }

    static void changed(Node& node, Zxid zxid, EventType type) {
        node.data_changes.push_back({zxid, type, node.acl});
        remember(node, zxid);
    }

    void child_changed(Node& parent, const Bytes& path, Zxid zxid, bool added) {
        const Bytes above(coord::parent_path(path));
        all_changes_.push_back({zxid, EventType::children_changed, above, parent.acl});
        const Bytes own(coord::node_name(path));
        if (added) parent.children.insert(own);
        if (!added) parent.children.erase(own);
        parent.stat.cversion += 1;
        parent.stat.pzxid = zxid;
        parent.stat.num_children = static_cast<std::int32_t>(parent.children.size());
        parent.child_log.push_back({zxid, own, added});
        parent.child_changes.push_back({zxid, EventType::children_changed, parent.acl});
        remember(parent, zxid);
    }

    static void remember(Node& node, Zxid zxid) {
        node.versions.emplace_back();
        Version& version = node.versions.back();
        version.zxid = zxid;
        version.present = node.present;
        if (!version.present) return;
        version.stat = node.stat, version.data = node.data, version.is_null = node.is_null;
        version.acl = node.acl;
    }

    Nodes nodes_;
    std::size_t size_ = 0;  // of nodes that are present
    mutable std::size_t count_left_ = 0;  // nodes that quotas that begin may count
    std::set<Bytes> limits_;  // paths of quotas' limits that ever were
    std::map<SessionId, SessionState> sessions_;
    std::map<std::uint64_t, SessionId> nonces_;
    Members members_, next_;
    std::vector<PathChange> all_changes_;
    Zxid frontier_;
    std::int64_t newest_ms_ = 0;
};

enum class Call : std::uint8_t {
    create, remove, set, exists, get, children, sync, close, multi, add_watch, remove_watches,
    read, set_acl, get_acl, add_auth, watch_since,
    reconfig,
    part  // a write that is a multi, and is answered as if it were none
};

inline const char* name(Call call) {
    static const char* const names[] = {"create", "remove",    "set",            "exists",
                                        "get",    "children",  "sync",           "close",
                                        "multi",  "add_watch", "remove_watches", "read",
                                        "set_acl", "get_acl",  "add_auth",       "watch_since",
                                        "reconfig", "part"};
    return names[static_cast<std::size_t>(call)];
}

inline bool is_write(Call call) {
    return call == Call::create || call == Call::remove || call == Call::set ||
           call == Call::close || call == Call::multi || call == Call::set_acl ||
           call == Call::add_auth || call == Call::reconfig || call == Call::part;
}

// What a client asked for.
struct Asked {
    Call call = Call::get;
    Bytes path;
    Bytes data;                // of a multi, and a part, the multi's body; of add_auth identities
    std::int32_t number = 0;
    bool watch = false;
    std::int64_t ttl_ms = 0;
    bool is_null = false;
    Zxid least{};              // of exists, get and read: the state that it demands
    std::vector<coord::Query> queries{};  // of read; their paths are in `paths`
    std::vector<Bytes> paths{};
    std::size_t guards = 0;    // of the parts of a multi, in front: the answer has none of them
    bool has_stat = false;     // the answer of a part: it is Created, or a Stat
    Bytes acl{};               // of create and set_acl
};

// What it was told.
struct Told {
    Errc error = Errc::ok;
    Bytes path;  // create
    Stat stat;
    Bytes data;                // get
    std::vector<Bytes> names;  // children
    Zxid zxid;                 // get and children
    std::vector<coord::Part> parts{};  // multi
    std::vector<coord::Found> found{};  // read
    bool is_null = false;      // get
    bool is_new = true;        // create_or_set
    Bytes acl{};               // get_acl
};

class Checker {
public:
    explicit Checker(std::uint32_t drift_permille = 50,
                     std::size_t removals_max = coord::Limits{}.removals_max,
                     std::size_t sessions_max = coord::Limits{}.sessions_max)
        : drift_permille_(drift_permille) {
        model_.removals_max = removals_max, model_.sessions_max = sessions_max;
    }

    bool ok() const { return violations_.empty(); }
    const std::vector<Bytes>& violations() const { return violations_; }
    const Model& model() const { return model_; }
    std::uint64_t entries() const { return log_.size(); }  // that any replica has applied
    std::uint64_t writes_acknowledged() const { return writes_acknowledged_; }
    std::uint64_t reads_compared() const { return reads_compared_; }
    std::uint64_t expiries() const { return expiries_; }
    std::uint64_t grants() const { return grants_; }
    std::uint64_t reads_shared() const { return reads_shared_; }  // granted beside another reader
    std::uint64_t downgrades() const { return downgrades_; }
    std::uint64_t events() const { return events_; }
    std::uint64_t reaps() const { return reaps_; }
    std::uint64_t void_reaps() const { return void_reaps_; }
    std::uint64_t guarded() const { return guarded_; }
    std::uint64_t specials() const { return specials_; }
    std::uint64_t taken_over() const { return taken_over_; }
    std::uint64_t guards_lost() const { return guards_lost_; }
    std::uint64_t refusals() const { return refusals_; }
    std::uint64_t over_quota() const { return over_quota_; }
    std::uint64_t reconfigs() const { return reconfigs_; }  // that have begun
    std::uint64_t silences() const { return silences_; }
    std::uint64_t doubts() const { return doubts_; }
    std::uint64_t doubts_executed() const { return doubts_executed_; }

    void violate(const char* property, const Bytes& what) {
        if (violations_.size() < 10) violations_.push_back(Bytes(property) + ": " + what);
    }

    // ---- The log, as each replica applies it

    void applied(std::uint32_t replica, const Txn& txn, const coord::Outcome* outcome,
                 std::uint64_t digest, Time now) {
        const Position& position = follow(replica, txn.zxid);
        const bool is_next = position.next < log_.size() && log_[position.next].zxid == txn.zxid;
        const Entry* known = is_next ? &log_[position.next] : find(txn.zxid);
        const std::uint64_t content = content_of(txn);
        if (known != nullptr) {
            if (known->content != content) differ("P13", replica, txn.zxid, "another entry");
            if (known->digest != digest) differ("P13", replica, txn.zxid, "another digest");
            position_of(replica) = {txn.zxid, static_cast<std::size_t>(known - log_.data()) + 1};
            return heard_of(replica, txn, outcome);
        }
        if (txn.zxid <= model_.frontier()) {
            place(position_of(replica), txn.zxid);
            return differ("P13", replica, txn.zxid, "an entry that is not in the log");
        }
        if (txn.previous != model_.frontier()) {
            differ("P13", replica, txn.zxid,
                   "an entry that follows " + show(txn.previous) + " and not " +
                       show(model_.frontier()));
        }
        extend(txn, outcome, now);
        log_.push_back({txn.zxid, content, digest});
        position_of(replica) = {txn.zxid, log_.size()};
        heard_of(replica, txn, outcome);
    }

    // A snapshot has taken the place of what the replica had applied.
    void installed(std::uint32_t replica, Zxid zxid, std::uint64_t digest) {
        state(replica, zxid, digest);
        place(position_of(replica), zxid);
        of_replica(installs_, replica) = zxid;
        begun(replica, zxid);
        for (auto& [id, client] : clients_) {
            if (client.home != replica || client.dropped) continue;
            for (auto& [number, watch] : client.armed) jump(watch, zxid);
            for (auto& [number, watch] : client.staying) watch.jumped_to = zxid;
        }
    }

    // A replica's memory is gone, or what it says now has to be what it was at that zxid.
    void restarted(std::uint32_t replica) {
        position_of(replica) = Position{};
        of_replica(installs_, replica) = Zxid{};
    }
    // Who was cut may hear of it when there is another life.
    void begun(std::uint32_t replica, Zxid zxid) {
        of_replica(begins_, replica) = zxid;
        for (auto& [number, stream] : streams_) {
            if (stream.replica == replica) stream.begin = (std::max)(stream.begin, zxid);
        }
    }
    // Its storage is gone, and what it had promised.
    void wiped(std::uint32_t replica) { of_replica(epochs_, replica) = {0, 0}; }
    void state(std::uint32_t replica, Zxid zxid, std::uint64_t digest) {
        if (zxid == Zxid{}) return;
        const Entry* known = find(zxid);
        if (known == nullptr) {
            return differ("P14", replica, zxid, "a state at a zxid that is not in the log");
        }
        if (known->digest != digest) differ("P14", replica, zxid, "another digest");
    }

    // At the end, when everybody has had time: P2.
    void caught_up(std::uint32_t replica, Zxid zxid) {
        if (zxid < model_.frontier()) {
            differ("P2", replica, zxid, "an end of the log before " + show(model_.frontier()));
        }
    }

    // All nodes and sessions of a replica against the model: the newest state alone.
    void whole_state(std::uint32_t replica, const coord::Machine& machine) {
        if (machine.applied() != model_.frontier()) return;
        std::size_t nodes = 0;
        machine.tree().visit([&](const coord::NodeView& node) {
            nodes += 1;
            node_now(replica, Bytes(node.path), node.stat, node.data);
            const Model::Version* const is = model_.at(Bytes(node.path), model_.frontier());
            if (is == nullptr || is->acl != node.acl) {
                differ("P24", replica, machine.applied(), "another ACL of " + Bytes(node.path));
            }
            life_now(replica, Bytes(node.path), *machine.tree().life(node.path));
        });
        if (nodes != model_.size()) differ("P1", replica, machine.applied(), "other nodes");
        for (const auto& [id, session] : model_.sessions()) {
            const coord::SessionRecord* own = machine.find_session(id);
            session_now(replica, id, own != nullptr, own == nullptr ? 0 : own->cxid);
            Who who;
            for (const AclEntry& each : entries_of(own == nullptr ? Bytes() : own->identities)) {
                who.emplace_back(each.scheme, each.id);
            }
            if (own != nullptr && who != session.who()) {
                differ("P24", replica, machine.applied(), "other identities of a session");
            }
        }
    }
    void node_now(std::uint32_t replica, const Bytes& path, const Stat& stat, BytesView data) {
        const Model::Version* node = model_.at(path, model_.frontier());
        if (node == nullptr || !node->present || !same(node->stat, stat) || node->data != data ||
            node->is_null != coord::is_null(data)) {
            differ("P1", replica, model_.frontier(), "another node " + path);
        }
        const SessionId owner = stat.ephemeral_owner;
        if (owner == SessionId{}) return;
        const auto session = model_.sessions().find(owner);
        if (session == model_.sessions().end() || !session->second.open) {
            differ("P9", replica, model_.frontier(), "an ephemeral without a session: " + path);
        }
    }
    void life_now(std::uint32_t replica, const Bytes& path, const coord::NodeLife& life) {
        if (model_.has_life(path, life)) return;
        differ("P22", replica, model_.frontier(), "a node of another kind, or ttl: " + path);
    }
    // When everybody has had time: nothing is left that was due then.
    void all_reaped(std::int64_t time_ms) {
        for (const Bytes& path : model_.due(time_ms)) violate("P22", path + " is due, and there");
    }
    void session_now(std::uint32_t replica, SessionId id, bool open, std::uint64_t cxid) {
        const auto own = model_.sessions().find(id);
        const bool known = own != model_.sessions().end();
        if ((known && own->second.open) != open) {
            differ("P9", replica, model_.frontier(),
                   "a session open or not: " + show(Zxid{id.value}));
        } else if (open && own->second.cxid != cxid) {
            differ("P15", replica, model_.frontier(), "another cxid");
        }
    }

    // ---- Leaders and epochs

    void established(std::uint32_t replica, std::uint64_t start, std::uint32_t epoch,
                     Zxid initial) {
        const auto [found, is_new] = leaders_.insert({epoch, {replica, start}});
        if (!is_new && found->second != std::make_pair(replica, start)) {
            violate("P12", "two leaders of epoch " + std::to_string(epoch) + ": " +
                               std::to_string(found->second.first) + " and " +
                               std::to_string(replica));
        }
        if (initial < model_.frontier() && model_.frontier().epoch() < epoch) {
            violate("P12", "the leader of epoch " + std::to_string(epoch) + " starts at " +
                               show(initial) + " without " + show(model_.frontier()));
        }
        newest_epoch_ = (std::max)(newest_epoch_, epoch);
    }
    std::size_t elections() const { return leaders_.size(); }

    void epochs(std::uint32_t replica, std::uint32_t accepted, std::uint32_t current) {
        auto& before = of_replica(epochs_, replica);
        if (accepted < before.first || current < before.second || current > accepted) {
            violate("P12", "the epochs of " + std::to_string(replica) + " go from " +
                               std::to_string(before.first) + "/" + std::to_string(before.second) +
                               " to " + std::to_string(accepted) + "/" + std::to_string(current));
        }
        before = {accepted, current};
    }

    // Some replica takes everything up to that for committed.
    void committed(Zxid zxid) { committed_ = (std::max)(committed_, zxid); }
    void observes(std::uint32_t replica, coord::Role role, Zxid last) {
        const bool is_voters = role == coord::Role::leading || role == coord::Role::following;
        if (is_voters) differ("P28", replica, last, Bytes("an observer that is ") + name(role));
        if (last > committed_) {
            differ("P28", replica, last, "more than is committed, which is " + show(committed_));
        }
    }

    // ---- Clients

    // Of a recipe's session the checker does not hear what is asked for.
    void opened(Holder id, std::uint32_t home, Time called_at, bool recipe = false) {
        const auto known = model_.sessions().find(id.session);
        if (known == model_.sessions().end()) {
            return violate("P1", "a session that is not in the log");
        }
        if (known->second.holding() < id.holding) {
            return violate("P1", "an attach that is not in the log");
        }
        if (!clients_.insert({id, {}}).second) violate("P15", "a session that was opened twice");
        clients_[id].called_at = called_at;
        clients_[id].seen = Zxid{id.session.value};
        const auto place = static_cast<std::size_t>(id.holding);
        if (place > 0) clients_[id].seen = known->second.held_since[place];
        clients_[id].recipe = recipe;
        clients_[id].home = home;
    }

    // A local one, at a replica that has applied up to there.
    void opened_local(SessionId id, std::uint32_t home, Time called_at, Zxid here,
                      bool recipe = false) {
        if (!clients_.insert({Holder(id), {}}).second) violate("P15", "a local session once more");
        Client& client = clients_[Holder(id)];
        client.called_at = called_at, client.seen = here;
        client.recipe = recipe, client.home = home;
        client.installed = of_replica(installs_, home);
        client.was_local = true;
    }
    bool is_in_log(SessionId id) const { return model_.sessions().count(id) != 0; }

    void attaching(SessionId id) { to_be_attached_.insert(id); }

    // RETURNS the number of the request within its session.
    std::size_t called(Holder id, const Asked& asked) {
        Client& client = clients_[id];
        const std::size_t number = client.ops.size();
        if (number == 0) client.ops.reserve(64);
        client.ops.emplace_back();
        Op& op = client.ops.back();
        op.asked = asked;
        op.observed_at_call = observed_;
        op.frontier_at_call = model_.frontier();
        if (is_write(asked.call)) op.cxid = ++client.writes;
        if (op.cxid != 0) client.write_ops.push_back(number), client.has_written = true;
        return number;
    }

    // The newest request was throttled as it was asked for: it has no number.
    void throttled(Holder id, std::size_t number) {
        Client& client = clients_[id];
        Op& op = client.ops[number];
        if (number + 1 != client.ops.size()) violate("P2", "throttled late: " + label(id, number));
        if (op.asked.call == Call::close || op.asked.call == Call::remove) {
            violate("P2", "throttled, and would free something: " + label(id, number));
        }
        op.is_throttled = true;
        if (op.cxid != 0) client.writes -= 1, client.write_ops.pop_back();
        op.cxid = 0;
    }

    // here: what the client's replica has applied.
    void answered(Holder id, std::size_t number, const Told& told, Zxid here) {
        Client& client = clients_[id];
        if (number < client.next || number >= client.ops.size() || client.ops[number].answered) {
            return violate("P15", "a second answer to " + label(id, number));
        }
        Op& op = client.ops[number];
        if (client.dropped) violate("P15", "an answer after the end: " + label(id, number));
        if (number != client.next) violate("P5", "an answer out of turn: " + label(id, number));
        op.answered = true;
        client.next = number + 1;
        if (told.error == Errc::session_expired) {
            expect_closed(id, label(id, number));
            expect_undone(id, op, number);
        } else if (told.error == Errc::outcome_unknown) {
            judge_doubt(id, client, op, number);
        } else if (told.error == Errc::session_moved) {
            judge_moved(id, op, number);
        } else if (op.is_throttled || told.error == Errc::throttled_op) {
            throttled_ += 1;
            if (!op.is_throttled || told.error != Errc::throttled_op) {
                violate("P2", "throttled, or not: " + label(id, number));
            }
        } else if (op.is_refused || (told.error == Errc::too_many && client.was_local)) {
            judge_refusal(id, op, number, told);
        } else if (is_write(op.asked.call)) {
            judge_write(id, client, op, number, told);
        } else if (op.asked.call == Call::sync) {
            judge_sync(id, client, op, number, told, here);
        } else if (op.asked.call == Call::add_watch) {
            if (told.error != Errc::ok) violate("P8", "no watcher is set by " + label(id, number));
            const bool is_recursive = op.asked.number == 1;
            const Zxid least = (std::max)(client.seen, client.synced);
            client.staying[number] = {op.asked.path, is_recursive, model_.first_change(least),
                                      here, of_replica(installs_, client.home)};
        } else if (op.asked.call == Call::watch_since) {
            judge_since(id, client, op, number, told, here);
        } else if (op.asked.call == Call::remove_watches) {
            judge_removal(id, client, op, number, told, here);
        } else {
            judge_read(id, client, op, number, told, here);
        }
    }

    void event(Holder id, std::size_t number, EventType type, const Bytes& path, Zxid zxid) {
        Client& client = clients_[id];
        events_ += 1;
        if (type >= EventType::data_watch_removed) return removed(id, number, type, path);
        if (client.staying.count(number) != 0) return at_staying(id, number, type, path, zxid);
        const auto armed = client.armed.find(number);
        const bool is_since = number == client.next && number < client.ops.size() &&
                              client.ops[number].asked.call == Call::watch_since;
        if (is_since) return told_since(id, client, number, type, path, zxid);
        if (armed == client.armed.end()) {
            return violate("P8", "an event that nobody waits for: " + label(id, number));
        }
        const Watch& watch = armed->second;
        if (client.dropped) violate("P8", "an event after the end: " + label(id, number));
        if (path != watch.path) violate("P8", "an event of another path: " + label(id, number));
        const Model::Change* first = Model::first_change(*watch.changes, watch.from_max);
        const Model::Change* least = Model::first_change(*watch.changes, watch.from_min);
        const bool exact = first != nullptr && first->zxid == zxid && first->type == type;
        const bool within = least != nullptr && least->zxid <= zxid && zxid <= watch.from_max;
        const bool at_once = watch.jumped_to == zxid && first != nullptr && first->zxid <= zxid &&
                             is_news(watch, type, zxid);
        if (is_hidden(id, watch, type, zxid)) {
            violate("P24", "an event at " + show(zxid) + " of a node that " + label(id, number) +
                               " may not read");
        }
        if (!exact && !within && !at_once) {
            violate("P8", "an event at " + show(zxid) + " that is not the first change after " +
                              show(watch.from_max) + ": " + label(id, number));
        }
        if (zxid <= client.seen && zxid > watch.from_max) {
            violate("P7", "an event at " + show(zxid) + " after an answer at " + show(client.seen) +
                              ": " + label(id, number));
        }
        observed_ = (std::max)(observed_, zxid);
        client.armed.erase(armed);
    }

    // At rest: every event up to `here` has come, every call has its answer.
    void settled(Holder id, Zxid here) {
        Client& client = clients_[id];
        if (client.dropped) return;
        if (!is_moved(id)) expect_events(id, client, here);
        if (client.next != client.ops.size()) {
            violate("P16", "no answer to " + label(id, client.next));
        }
    }
    bool has_all_answers(Holder id) const {
        const auto found = clients_.find(id);
        return found == clients_.end() || found->second.next == found->second.ops.size();
    }
    void moved(Holder id) {
        if (is_moved(id) || may_be_over(id)) return;  // or is opened after all, for nobody
        violate("P9", "a session that has not moved: " + show(Zxid{id.session.value}));
    }
    void expired(Holder id) { expect_closed(id, "the client was told that it expired"); }
    // Nothing more comes: it is closed, or expired, or its replica is gone.
    void dropped(Holder id) {
        clients_[id].dropped = true;
        clients_[id].armed.clear(), clients_[id].staying.clear();
    }
    std::size_t staying(Holder id) { return clients_[id].staying.size(); }

    // ---- Streams, each by its number. It goes on from a position, at that replica.

    void streams(std::size_t number, const Bytes& path, coord::ChangePosition from,
                 std::uint32_t replica, bool is_new) {
        Stream& stream = streams_[number];
        stream.replica = replica, stream.begin = of_replica(begins_, replica);
        if (is_new) stream.path = path, stream.next = place_of(from);
        if (is_new) skip(stream);
        if (next_of(stream) != place_of(from, stream)) {
            violate("P25", "a stream's position is not behind what it had: " + label(number));
        }
    }
    void streamed(std::size_t number, const coord::Change& change) {
        Stream& stream = streams_[number];
        streamed_ += 1;
        skip(stream);
        const std::vector<Model::PathChange>& all = model_.all_changes();
        if (stream.next >= all.size()) {
            return violate("P25", "a change that is not in the log: " + label(number));
        }
        const Model::PathChange& right = all[stream.next];
        const Zxid zxid = change.position.zxid;
        if (right.zxid != zxid || right.type != change.type || right.path != change.path) {
            return violate("P25", "a change of " + change.path + " at " + show(zxid) + " where " +
                                      right.path + " at " + show(right.zxid) + " is next: " +
                                      label(number));
        }
        if (!is_what_it_was(stream.next, change)) {
            violate("P25", "a change of " + change.path + " at " + show(zxid) +
                               " that is another one: " + label(number));
        }
        stream.next += 1;
        skip(stream);
        const bool is_last = stream.next >= all.size() || all[stream.next].zxid != zxid;
        const bool is_behind = place_of(change.position, stream) == stream.next;
        if (change.is_last != is_last || !is_behind) {
            violate("P25", "not the last one, or another position: " + label(number));
        }
    }
    // It has nothing more, at a replica that has applied up to there.
    void streamed_all(std::size_t number, Zxid here, coord::ChangePosition position) {
        Stream& stream = streams_[number];
        skip(stream);
        const std::vector<Model::PathChange>& all = model_.all_changes();
        if (stream.next < all.size() && all[stream.next].zxid <= here) {
            violate("P25", "the change at " + show(all[stream.next].zxid) + " is left out by " +
                               show(here) + ": " + label(number));
        }
        if (position.zxid < here) {
            violate("P25", "a position that stays behind: " + label(number));
        }
    }
    // bounded: it may be that something has had to give way.
    void stream_is_cut(std::size_t number, coord::ChangePosition position, bool bounded) {
        const Stream& stream = streams_[number];
        if (bounded || position < coord::ChangePosition(stream.begin)) return;
        violate("P25", "what is after " + show(position.zxid) + " is not there any more: " +
                           label(number));
    }
    std::uint64_t streamed() const { return streamed_; }
    std::uint64_t upgrades() const { return upgrades_; }
    std::uint64_t upgrades_refused() const { return upgrades_refused_; }
    std::uint64_t throttled() const { return throttled_; }

    void alive_until(Holder id, Time until) {
        Client& client = clients_[id];
        client.alive_until = (std::max)(client.alive_until, until);
        const auto closed = expired_at_.find(id.session);
        if (closed != expired_at_.end() && closed->second < until) {
            violate("P10", "session " + show(Zxid{id.session.value}) + " is certain of another " +
                               std::to_string((until - closed->second).ns / 1000) +
                               " us when it expires at " +
                               std::to_string(closed->second.ns / 1000000) + " ms; " +
                               describe(id));
        }
    }
    // From now on no session may expire whose client is connected.
    void forbid_expiry(bool forbid) { expiry_forbidden_ = forbid; }

    // ---- Locks

    // Of readers, several may hold it, and their tokens are larger than every writer's before.
    void granted(const Bytes& lock, std::uint64_t holder, std::uint64_t token, Time now,
                 bool is_writer = true) {
        Lock& state = locks_[lock];
        grants_ += 1;
        const std::uint64_t highest = is_writer ? state.token : state.writer_token;
        if (token <= highest) {
            violate("P11", "token " + show(Zxid{token}) + " of " + lock + " is granted after " +
                               show(Zxid{highest}));
        }
        if (!is_writer && !state.holds.empty() && !state.holds.begin()->second.is_writer) {
            reads_shared_ += 1;
        }
        for (auto each = state.holds.begin(); each != state.holds.end();) {
            const bool is_over = is_writer || each->second.is_writer;
            if (is_over && each->second.until > now) {
                violate("P11", lock + " is granted while its holder is certain of it for another " +
                                   std::to_string((each->second.until - now).ns / 1000) + " us");
            }
            each = is_over ? state.holds.erase(each) : std::next(each);
        }
        state.holds[holder] = Hold{is_writer, Time{}};
        state.token = (std::max)(state.token, token);
        if (is_writer) state.writer_token = token;
    }
    // A writer asks to be a reader: from now on others may read beside it, and still none writes.
    void will_read(const Bytes& lock, std::uint64_t holder) {
        Lock& state = locks_[lock];
        const auto hold = state.holds.find(holder);
        if (hold != state.holds.end()) hold->second.is_writer = false;
    }
    // It may be told late, when the session is over elsewhere; then it is certain of nothing.
    void downgraded(const Bytes& lock, std::uint64_t before, std::uint64_t token) {
        downgrades_ += 1;
        if (token != before) violate("P11", lock + " has another token for the same grant");
    }
    // A holder that has not let go says until when it is certain of the lock.
    void held_until(const Bytes& lock, std::uint64_t holder, Time until, Time now) {
        Lock& state = locks_[lock];
        const auto hold = state.holds.find(holder);
        if (hold == state.holds.end()) {
            if (until > now) violate("P11", "a former holder of " + lock + " is certain of it");
            return;
        }
        hold->second.until = (std::max)(hold->second.until, until);
    }
    void let_go(const Bytes& lock, std::uint64_t holder) { locks_[lock].holds.erase(holder); }

private:
    static constexpr Zxid no_position{UINT64_MAX};

    struct Entry {
        Zxid zxid;
        std::uint64_t content = 0;
        std::uint64_t digest = 0;
    };
    // What a replica has applied, and where in the log the entry after it is or will be.
    struct Position {
        Zxid zxid = no_position;
        std::size_t next = 0;
    };
    struct Op {
        Asked asked;
        std::uint64_t cxid = 0;
        Zxid observed_at_call;
        Zxid frontier_at_call;
        bool answered = false;
        bool is_refused = false;  // its session could not be opened for all
        bool is_throttled = false;
        std::size_t fired = 0;  // of watch_since: events before the answer
    };
    struct Watch {
        Bytes path;
        const std::vector<Model::Change>* changes = nullptr;
        Zxid from_min;  // it was set at a zxid between these
        Zxid from_max;
        Zxid jumped_to;  // changes up to here came all at once, with a snapshot
    };
    struct Staying {
        Bytes path;
        bool is_recursive = false;
        std::size_t next = 0;  // of the model's changes: what it may hear of
        Zxid from_max;         // it was set at a zxid up to this one
        Zxid jumped_to;        // changes up to here came all at once
    };
    struct Client {
        std::vector<Op> ops;
        std::vector<std::size_t> write_ops;
        bool has_written = false;  // it has asked to; its session was to be opened for all
        std::size_t next = 0;  // to be answered
        std::uint64_t writes = 0;
        Zxid seen;
        Zxid synced;  // reads are no older
        Zxid last_write;
        std::map<std::size_t, Watch> armed;
        std::map<std::size_t, Staying> staying;
        std::size_t removed = 0;  // watchers, by the request that is answered next
        bool dropped = false;
        bool recipe = false;
        bool was_local = false;
        Zxid installed;  // at its replica, when it was opened there
        std::uint32_t home = 0;
        Time called_at;
        Time alive_until;
    };
    struct Stream {
        Bytes path;
        std::size_t next = 0;  // of the model's changes: the first one that has not been told
        std::uint32_t replica = 0;
        Zxid begin;            // the latest that the memory of that one has begun with since
    };
    struct Hold {
        bool is_writer = true;
        Time until;
    };
    struct Lock {
        std::uint64_t token = 0;         // the highest that was granted
        std::uint64_t writer_token = 0;  // and to a writer
        std::map<std::uint64_t, Hold> holds;
    };

    void differ(const char* property, std::uint32_t replica, Zxid zxid, const Bytes& what) {
        violate(property,
                "replica " + std::to_string(replica) + " at " + show(zxid) + " has " + what);
    }
    Bytes describe(Holder id) const {
        const auto session = model_.sessions().find(id.session);
        auto client = clients_.upper_bound(Holder{id.session, UINT64_MAX});
        if (session == model_.sessions().end() || client == clients_.begin()) return "unknown";
        --client;
        return "of replica " + std::to_string(client->second.home) + ", asked for at " +
               std::to_string(client->second.called_at.ns / 1000000) + " ms, timeout " +
               std::to_string(session->second.timeout_ms) + " ms";
    }
    Bytes label(Holder id, std::size_t number) const {
        Bytes text = "request " + std::to_string(number) + " of session ";
        text += show(Zxid{id.session.value});
        const auto found = clients_.find(id);
        if (found == clients_.end() || number >= found->second.ops.size()) return text;
        const Asked& asked = found->second.ops[number].asked;
        return text + " (" + name(asked.call) + " " + asked.path + ")";
    }
    static std::uint64_t content_of(const Txn& txn) {
        std::uint64_t hash = coord::hash64(txn.body, txn.zxid.value);
        hash = coord::mix64(hash, coord::mix64(txn.session.value, txn.cxid));
        hash = coord::mix64(hash, coord::mix64(txn.previous.value, txn.confirmed));
        return coord::mix64(hash, coord::mix64(static_cast<std::uint64_t>(txn.time_ms),
                                               static_cast<std::uint64_t>(txn.op)));
    }
    const Entry* find(Zxid zxid) const {
        const auto found = std::lower_bound(log_.begin(), log_.end(), zxid,
                                            [](const Entry& e, Zxid z) { return e.zxid < z; });
        return found != log_.end() && found->zxid == zxid ? &*found : nullptr;
    }
    template <class Each>
    static Each& of_replica(std::vector<Each>& all, std::uint32_t replica) {
        if (replica >= all.size()) all.resize(replica + 1u);
        return all[replica];
    }
    Position& position_of(std::uint32_t replica) { return of_replica(positions_, replica); }
    void place(Position& position, Zxid zxid) const {
        const auto after = std::upper_bound(log_.begin(), log_.end(), zxid,
                                            [](Zxid z, const Entry& e) { return z < e.zxid; });
        position.zxid = zxid;
        position.next = static_cast<std::size_t>(after - log_.begin());
    }

    // What changed between the watch and the snapshot is told by one event at the snapshot's zxid;
    // a node that came and went unseen is not told of at all.
    void jump(Watch& watch, Zxid zxid) {
        const Model::Change* first = Model::first_change(*watch.changes, watch.from_max);
        if (first == nullptr || first->zxid > zxid) return;
        watch.jumped_to = zxid;
        const Model::Version* before = model_.at(watch.path, watch.from_max);
        const Model::Version* after = model_.at(watch.path, zxid);
        const bool was = before != nullptr && before->present;
        if (!was && !(after != nullptr && after->present)) watch.from_max = zxid;
    }
    bool is_news(const Watch& watch, EventType type, Zxid zxid) const {
        const Model::Version* after = model_.at(watch.path, zxid);
        const bool present = after != nullptr && after->present;
        if (type == EventType::deleted) return !present || after->stat.czxid > watch.from_max;
        if (type == EventType::created) return present && after->stat.czxid > watch.from_min;
        return present;
    }

    // A replica applies the log without holes and in order.
    const Position& follow(std::uint32_t replica, Zxid zxid) {
        Position& position = position_of(replica);
        const bool is_known = position.zxid != no_position;
        const std::size_t next = position.next;
        const bool known_next = next < log_.size();
        if (is_known && (zxid <= position.zxid || (known_next && log_[next].zxid != zxid))) {
            differ("P13", replica, position.zxid, "a next entry " + show(zxid));
        }
        return position;
    }

    void extend(const Txn& txn, const coord::Outcome* outcome, Time now) {
        if (txn.op == OpCode::close_session && txn.cxid == 0) judge_expiry(txn, now);
        judge_origin(txn);
        if (txn.op == OpCode::open_session) judge_upgrade(txn);
        const Answer answer = model_.apply(txn);
        if (txn.op == OpCode::reap) judge_reap(txn, answer);
        if (txn.op == OpCode::reconfig && answer.error == Errc::marshalling_error) {
            violate("P29", "a step that it was not time for: " + show(txn.zxid));
        }
        if (txn.op == OpCode::multi && outcome != nullptr) judge_guards(txn, *outcome);
        if (answer.is_void != (outcome == nullptr)) {
            return violate("P15", "the model and a replica do not both execute " + show(txn.zxid));
        }
        if (outcome == nullptr) return;
        if (outcome->error != answer.error || outcome->session != answer.session) {
            violate("P1", "the outcome of " + show(txn.zxid) + " is " +
                              Bytes(coord::name(outcome->error)) + " and the model's " +
                              coord::name(answer.error));
        }
        if (!same(outcome->parts, answer.parts)) {
            violate("P1", "the parts of " + show(txn.zxid) + " are others than the model's");
        }
        if (answer.error != Errc::ok) return;
        if (answer.op == OpCode::create && outcome->path != answer.path) {
            violate("P1", "the path of " + show(txn.zxid) + " is " + outcome->path +
                              " and the model's " + answer.path);
        }
        const bool has_stat = answer.op == OpCode::create || answer.op == OpCode::set ||
                              answer.op == OpCode::set_acl;
        if (has_stat && !same(outcome->stat, answer.stat)) {
            violate("P1", "the stat of " + show(txn.zxid) + " is " + show(outcome->stat) +
                              " and the model's " + show(answer.stat));
        }
    }

    // P23, by what was there before, and not by the model's own execution.
    void judge_guards(const Txn& txn, const coord::Outcome& outcome) {
        coord::Reader in(txn.body);
        for (std::uint32_t left = in.u32(); left > 0; left--) {
            const auto op = static_cast<OpCode>(in.u8());
            coord::Reader part(in.bytes(SIZE_MAX));
            specials_ += outcome.error == Errc::ok && op > OpCode::guard ? 1u : 0u;
            taken_over_ += outcome.error == Errc::ok && op == OpCode::take_over ? 1u : 0u;
            if (op != OpCode::guard) continue;
            const Bytes path(part.bytes(SIZE_MAX));
            const Zxid czxid = part.zxid();
            if (outcome.error == Errc::guard_lost) guards_lost_ += 1;
            if (outcome.error == Errc::guard_lost) return;
            if (outcome.error != Errc::ok) return;
            guarded_ += 1;
            const Model::Version* const node = model_.at(path, Zxid{txn.zxid.value - 1});
            if (node == nullptr || !node->present || node->stat.czxid != czxid) {
                violate("P23", show(txn.zxid) + " is done, and its guard was gone: " + path);
            }
            if (path.compare(0, 7, "/locks/") != 0) continue;
            Zxid& newest = tokens_[Bytes(coord::parent_path(path))];
            if (czxid < newest) {
                violate("P23", show(txn.zxid) + " is done under token " + show(czxid) + " after " +
                                   show(newest));
            }
            newest = (std::max)(newest, czxid);
        }
    }

    // A leader suggests what goes by itself, and nobody's session does.
    void judge_reap(const Txn& txn, const Answer& answer) {
        const Fields fields = fields_of(txn);
        reaps_ += answer.error == Errc::ok ? 1u : 0u;
        void_reaps_ += answer.error == Errc::ok ? 0u : 1u;
        const bool is_nobodys = txn.session == SessionId{} && txn.cxid == 0;
        if (!is_nobodys || !model_.went_by_itself(fields.path, fields.czxid)) {
            violate("P22", "a reap of what does not go by itself: " + fields.path);
        }
    }

    void judge_expiry(const Txn& txn, Time now) {
        const auto session = model_.sessions().find(txn.session);
        if (session == model_.sessions().end() || !session->second.open) return;
        expiries_ += 1;
        expired_at_[txn.session] = now;
        // The last one may be unknown: its replica crashed before it could tell.
        const auto end = clients_.upper_bound(Holder{txn.session, UINT64_MAX});
        for (auto each = clients_.lower_bound(txn.session); each != end; ++each) {
            judge_expiry(txn, now, each->first, each->second, session->second);
        }
    }
    void judge_expiry(const Txn& txn, Time now, Holder id, const Client& client,
                      const Model::SessionState& session) {
        const Bytes who = "session " + show(Zxid{txn.session.value});
        const std::int64_t timeout_ns = std::int64_t{session.timeout_ms} * 1000000;
        const std::int64_t least = timeout_ns * 1000 / (1000 + std::int64_t{drift_permille_});
        if (now.ns - client.called_at.ns < least)
            violate("P10", who + " expires before its time, " + describe(txn.session));
        if (now < client.alive_until)
            violate("P10", who + " expires while it certainly lives, " + describe(txn.session));
        if (expiry_forbidden_ && !client.dropped && session.holding() == id.holding) {
            violate("P10", who + " expires although all is well");
        }
    }

    // P3: the entry is what a client asked for.
    void judge_origin(const Txn& txn) {
        if (txn.op == OpCode::open_session || txn.cxid == 0) return;
        if (txn.op == OpCode::attach_session) {
            if (to_be_attached_.count(txn.session) != 0) return;
            return violate("P3", "an attach that nobody asked for: " + show(txn.zxid));
        }
        const auto found = clients_.find(Holder{txn.session, txn.cxid >> coord::cxid_bits});
        if (found != clients_.end() && found->second.recipe) return;
        if (found == clients_.end()) {
            return violate("P3",
                           "an entry of a session that nobody was told of: " + show(txn.zxid));
        }
        const Client& client = found->second;
        const std::uint64_t place = txn.cxid & ((std::uint64_t{1} << coord::cxid_bits) - 1);
        if (place == 0 || place > client.write_ops.size()) {
            return violate("P3", "an entry that nobody asked for: " + show(txn.zxid));
        }
        const Asked& asked = client.ops[client.write_ops[place - 1]].asked;
        const Fields fields = fields_of(txn);
        if (txn.op == OpCode::reconfig) return judge_reconfig(txn, asked);
        const bool right =
            (txn.op == OpCode::close_session && asked.call == Call::close) ||
            (txn.op == OpCode::remove && asked.call == Call::remove) ||
            (txn.op == OpCode::create && asked.call == Call::create && asked.data == fields.data) ||
            (txn.op == OpCode::multi && asked.data == fields.data &&
             (asked.call == Call::multi || asked.call == Call::part)) ||
            (txn.op == OpCode::set_acl && asked.call == Call::set_acl) ||
            (txn.op == OpCode::auth && asked.call == Call::add_auth && asked.data == fields.data) ||
            (txn.op == OpCode::set && asked.call == Call::set && asked.data == fields.data);
        const bool closing = txn.op == OpCode::close_session;
        const bool is_same = asked.path == fields.path && asked.number == fields.number &&
                             asked.acl == fields.acl &&
                             asked.ttl_ms == fields.ttl_ms && asked.is_null == fields.is_null;
        if (!right || (!closing && !is_same)) {
            violate("P3", "another entry than was asked for: " + show(txn.zxid));
        }
    }

    // P29: the members that were asked for, by who may, one change at a time.
    void judge_reconfig(const Txn& txn, const Asked& asked) {
        coord::Reader in(txn.body);
        const std::uint8_t step = in.u8();
        const Who& who = model_.who_at(txn.session, txn.zxid);
        const bool is_super =
            std::find(who.begin(), who.end(), std::make_pair(Bytes("super"), Bytes())) != who.end();
        if (asked.call != Call::reconfig) {
            return violate("P3", "another entry than was asked for: " + show(txn.zxid));
        }
        if (step == 4) {
            const bool is_refused = static_cast<Errc>(in.i32()) == Errc::no_auth;
            if (is_refused == is_super) violate("P29", "who may or may not: " + show(txn.zxid));
        } else if (step != 2 || !is_super || model_.is_joint() ||
                   Model::read_members(in) != model_.members_after(asked.data)) {
            violate("P29", "members that nobody asked for: " + show(txn.zxid));
        } else {
            reconfigs_ += 1;
        }
    }

    // P15. Recipes write whatever they do.
    void judge_upgrade(const Txn& txn) {
        const Fields fields = fields_of(txn);
        if (!fields.was_local) return;
        const SessionId id{fields.nonce};
        if (is_in_log(id)) {
            const bool is_over = !model_.sessions().find(id)->second.open;
            if (is_over) violate("P15", "a session that was local is opened again: " + show(id));
            return;
        }
        const auto found = clients_.find(Holder(id));
        const bool is_known = found != clients_.end() && found->second.was_local;
        if (!is_known || (!found->second.recipe && found->second.write_ops.empty())) {
            violate("P15", "a local session that writes nothing is opened: " + show(id));
        }
        upgrades_ += is_known ? 1u : 0u;
    }

    // Its replica hears that there is no room for it: the writes asked for by then are not to be
    // numbered, and those after them take their places.
    void heard_of(std::uint32_t replica, const Txn& txn, const coord::Outcome* outcome) {
        if (txn.op != OpCode::open_session || outcome == nullptr) return;
        if (outcome->error != Errc::too_many) return;
        const Fields fields = fields_of(txn);
        if (fields.was_local) refuse_upgrade(replica, SessionId{fields.nonce});
    }
    void refuse_upgrade(std::uint32_t replica, SessionId id) {
        const auto found = clients_.find(Holder(id));
        if (found == clients_.end() || found->second.dropped) return;
        Client& client = found->second;
        if (client.home != replica) return;
        client.write_ops.clear(), client.writes = 0;
        for (std::size_t i = client.next; i < client.ops.size(); i++) {
            Op& op = client.ops[i];
            op.is_refused = op.is_refused || (op.cxid != 0 && op.asked.call != Call::close);
            if (op.is_refused) op.cxid = 0;
            if (op.cxid == 0) continue;
            op.cxid = ++client.writes;
            client.write_ops.push_back(i);
        }
    }
    void judge_refusal(Holder id, const Op& op, std::size_t number, const Told& told) {
        upgrades_refused_ += 1;
        if (!op.is_refused || told.error != Errc::too_many) {
            violate("P2", Bytes(coord::name(told.error)) + ", and its session had no room: " +
                              label(id, number));
        }
    }

    // A local session ends by its owner's close; or it cannot know what became of its opening,
    // where its replica has skipped that by a snapshot.
    bool may_be_over(Holder id) {
        const auto found = clients_.find(id);
        if (found == clients_.end() || !found->second.was_local) return false;
        const Client& client = found->second;
        const auto opened = model_.sessions().find(id.session);
        const bool is_empty = opened == model_.sessions().end() || opened->second.cxid == 0;
        const bool has_skipped = of_replica(installs_, client.home) > client.installed;
        const bool may_write = client.recipe || client.has_written;
        if (is_empty && has_skipped && may_write) return true;
        const auto is_close = [](const Op& op) { return op.asked.call == Call::close; };
        return opened == model_.sessions().end() &&
               (client.recipe || std::any_of(client.ops.begin(), client.ops.end(), is_close));
    }

    void expect_closed(Holder id, const Bytes& who) {
        const auto found = model_.sessions().find(id.session);
        if (may_be_over(id)) return;
        if (found == model_.sessions().end() || found->second.open) {
            violate("P10", "session " + show(Zxid{id.session.value}) + " is open: " + who);
        }
    }

    bool is_moved(Holder id) const {
        const auto found = model_.sessions().find(id.session);
        return found != model_.sessions().end() && found->second.holding() > id.holding;
    }
    void judge_moved(Holder id, const Op& op, std::size_t number) {
        moved(id);
        expect_undone(id, op, number);
    }
    // P27. What has not been executed when this is said never will be: P15.
    void expect_undone(Holder id, const Op& op, std::size_t number) {
        if (answer_to(id, op) == nullptr) return;
        violate("P27", "told that its session is over, and executed: " + label(id, number));
    }
    // P27. Only of a write, and only where the replica has jumped over the end of its session.
    void judge_doubt(Holder id, const Client& client, const Op& op, std::size_t number) {
        doubts_ += 1, doubts_executed_ += answer_to(id, op) != nullptr ? 1u : 0u;
        const auto found = model_.sessions().find(id.session);
        const Zxid jumped_to = of_replica(installs_, client.home);
        Zxid end = coord::newest;
        if (found != model_.sessions().end()) {
            const Model::SessionState& session = found->second;
            if (!session.open) end = session.closed_at;
            const auto next = static_cast<std::size_t>(id.holding) + 1;
            if (next < session.held_since.size()) end = session.held_since[next];
        }
        if (!is_write(op.asked.call)) violate("P27", "a read in doubt: " + label(id, number));
        if (op.asked.call == Call::close || jumped_to < end) {
            violate("P27", "in doubt, and its end is applied: " + label(id, number));
        }
    }
    const Answer* answer_to(Holder id, const Op& op) const {
        const auto found = model_.sessions().find(id.session);
        if (op.cxid == 0 || found == model_.sessions().end()) return nullptr;
        const std::vector<Answer>& all =
            found->second.answers[static_cast<std::size_t>(id.holding)];
        return op.cxid <= all.size() ? &all[static_cast<std::size_t>(op.cxid - 1)] : nullptr;
    }

    void judge_write(Holder id, Client& client, const Op& op, std::size_t number,
                     const Told& told) {
        writes_acknowledged_ += 1;
        if (op.asked.call == Call::close && told.error == Errc::ok) {
            return expect_closed(id, label(id, number));  // by this or by expiry: it is gone
        }
        const Answer* const found = answer_to(id, op);
        if (found == nullptr) {
            return violate("P2", Bytes(coord::name(told.error)) +
                                     ", and not in the log: " + label(id, number));
        }
        const Answer& answer = *found;
        refusals_ += told.error == Errc::no_auth ? 1u : 0u;
        over_quota_ += told.error == Errc::quota_exceeded ? 1u : 0u;
        if (answer.error != told.error) {
            violate("P1", label(id, number) + " is told " + Bytes(coord::name(told.error)) +
                              ", the model " + coord::name(answer.error));
        } else if (op.asked.call == Call::part) {
            if (told.error == Errc::ok) judge_part(id, op, number, told, answer);
        } else if (!same(told.parts, shown(answer.parts, op.asked.guards))) {
            violate("P1", label(id, number) + " is told other parts than the model");
        } else if (told.error == Errc::ok) {
            const bool has_stat = op.asked.call == Call::create || op.asked.call == Call::set ||
                                  op.asked.call == Call::set_acl;
            if (has_stat && !same(told.stat, answer.stat)) {
                violate("P1", label(id, number) + " is told another stat than the model");
            }
            if (op.asked.call == Call::create && told.path != answer.path) {
                violate("P1", label(id, number) + " is told another path than the model");
            }
            if (op.asked.call == Call::reconfig) judge_config(id, number, told, answer);
        }
        if (answer.zxid <= op.observed_at_call) {
            violate("P1", label(id, number) + " has " + show(answer.zxid) + ", but at its call " +
                              show(op.observed_at_call) + " had been observed");
        }
        if (answer.zxid <= client.last_write)
            violate("P5", "writes out of order: " + label(id, number));
        client.last_write = answer.zxid;
        see(id, client, number, answer.zxid);
    }

    // P29: it is told when what it has begun has ended.
    void judge_config(Holder id, std::size_t number, const Told& told, const Answer& answer) {
        const Model::Version* const config = model_.at(config_node, told.zxid);
        const bool is_right = config != nullptr && config->zxid == told.zxid &&
                              told.zxid > answer.zxid && config->data == told.data &&
                              same(config->stat, told.stat);
        if (!is_right) violate("P29", label(id, number) + " is told of other members");
    }

    static std::vector<coord::Part> shown(std::vector<coord::Part> parts, std::size_t guards) {
        parts.erase(parts.begin(),
                    parts.begin() + static_cast<std::ptrdiff_t>((std::min)(guards, parts.size())));
        return parts;
    }
    // It was one of several, and they are not seen.
    void judge_part(Holder id, const Op& op, std::size_t number, const Told& told,
                    const Answer& answer) {
        const coord::Part& part = answer.parts.back();
        if (!op.asked.has_stat) return;
        const bool is_new = part.stat.czxid == answer.zxid && part.stat.version == 0;
        if (!same(told.stat, part.stat) || told.path != part.path || told.is_new != is_new) {
            violate("P1", label(id, number) + " is told " + told.path + " " + show(told.stat) +
                              ", the model " + part.path + " " + show(part.stat));
        }
    }

    void judge_sync(Holder id, Client& client, const Op& op, std::size_t number,
                    const Told& told, Zxid here) {
        if (told.error != Errc::ok) return violate("P6", "a sync failed: " + label(id, number));
        if (here < op.frontier_at_call) {
            violate("P6", label(id, number) + " ends at " + show(here) + " and began at " +
                              show(op.frontier_at_call));
        }
        client.synced = (std::max)(client.synced, op.frontier_at_call);
    }

    // All parts of it are of one state.
    void judge_queries(Holder id, const Op& op, std::size_t number, const Told& told) {
        if (told.error != Errc::ok || told.found.size() != op.asked.queries.size()) {
            return violate("P4", label(id, number) + " has not as many parts as it asked for");
        }
        for (std::size_t i = 0; i < told.found.size(); i++) {
            if (told.found[i].zxid == told.zxid &&
                is_found_at(id, op.asked.queries[i], op.asked.paths[i], told.found[i])) {
                continue;
            }
            violate("P4", "part " + std::to_string(i) + " of " + label(id, number) +
                              " is not the state at " + show(told.zxid));
        }
    }

    bool is_found_at(Holder id, const coord::Query& query, const Bytes& path,
                     const coord::Found& found) const {
        using Kind = coord::Query::Kind;
        if (query.kind == Kind::ephemerals) return are_ephemerals(id, path, found);
        const Model::Version* node = model_.at(path, found.zxid);
        const bool present = node != nullptr && node->present;
        const Who& who = model_.who_at(id.session, found.zxid);
        const bool is_refused = present && query.kind != Kind::exists &&
                                !allows(node->acl, who, query.kind == Kind::acl ? 17 : 1);
        if (found.error == Errc::no_auth) return is_refused && same(Stat{}, found.stat);
        if (found.error != Errc::ok) return found.error == Errc::no_node && !present;
        if (!present || is_refused || !same(node->stat, found.stat)) return false;
        if (query.kind == Kind::acl) return found.acl.bytes() == shown_acl(node->acl, who);
        if (query.kind == Kind::get) {
            return node->data == found.bytes && node->is_null == found.is_null;
        }
        if (query.kind == Kind::descendants) {
            return found.count == model_.descendants_at(path, found.zxid);
        }
        if (query.kind == Kind::exists) return true;
        std::vector<Bytes> listed = found.names;
        for (const coord::Child& each : found.nodes) {
            const Model::Version* child = model_.at(join(path, each.name), found.zxid);
            if (child == nullptr || !child->present) return false;
            const bool is_shown = allows(child->acl, who, 1);
            if (each.error != (is_shown ? Errc::ok : Errc::no_auth)) return false;
            if (!same(child->stat, each.stat)) return false;
            if (each.bytes != (is_shown ? child->data : Bytes())) return false;
            if (each.is_null != (is_shown && child->is_null)) return false;
            listed.push_back(each.name);
        }
        return is_page(query.page, path, found, listed);
    }

    static Bytes join(const Bytes& path, const Bytes& child) {
        return path == "/" ? path + child : path + "/" + child;
    }

    bool is_page(const coord::Page& page, const Bytes& path, const coord::Found& found,
                 const std::vector<Bytes>& listed) const {
        std::vector<Bytes> right;
        std::set<Bytes> then;
        for (const Bytes& child : model_.children_at(path, found.zxid, then)) {
            const bool begins = child.compare(0, page.prefix.size(), page.prefix) == 0;
            if (begins && page.after < child) right.push_back(child);
        }
        const bool more = right.size() > page.limit;
        if (more) right.resize(page.limit);
        return listed == right && found.more == more;
    }

    // Of the session, and where nothing has happened since, all of them.
    bool are_ephemerals(Holder id, const Bytes& prefix, const coord::Found& found) const {
        for (const Bytes& path : found.names) {
            const Model::Version* node = model_.at(path, found.zxid);
            if (node == nullptr || !node->present) return false;
            if (node->stat.ephemeral_owner != id.session) return false;
        }
        if (found.error != Errc::ok) return false;
        if (found.zxid != model_.frontier()) return true;
        const auto session = model_.sessions().find(id.session);
        if (session == model_.sessions().end()) return found.names.empty();  // a local one
        std::vector<Bytes> right;
        for (const Bytes& path : session->second.ephemerals) {
            if (path.compare(0, prefix.size(), prefix) == 0) right.push_back(path);
        }
        return found.names == right;
    }

    void judge_read(Holder id, Client& client, const Op& op, std::size_t number,
                    const Told& told, Zxid here) {
        reads_compared_ += 1;
        // A state that is not here yet is not waited for where the session is closed meanwhile.
        const bool is_closing = client.ops.back().asked.call == Call::close;
        const bool waits = op.asked.least != Zxid{} && op.asked.least != coord::newest;
        if (told.error == Errc::cancelled && is_closing && waits) return;
        const Zxid demanded =
            op.asked.least == coord::newest ? op.frontier_at_call : op.asked.least;
        client.synced = (std::max)(client.synced, demanded);
        const Zxid least = (std::max)(client.seen, client.synced);
        const bool known = told.error == Errc::ok && op.asked.call != Call::exists &&
                           op.asked.call != Call::get_acl;
        Zxid at = told.zxid;
        refusals_ += told.error == Errc::no_auth ? 1u : 0u;
        if (known) {
            if (at < client.seen) violate("P4", label(id, number) + " goes back to " + show(at));
            if (at < client.synced) violate("P6", label(id, number) + " is older than its sync");
            if (op.asked.call == Call::read) {
                judge_queries(id, op, number, told);
            } else if (!is_state_at(id, op.asked, told, at)) {
                violate("P4", label(id, number) + " is not the state at " + show(at));
            }
        } else {
            at = first_match(id, op.asked, told, least, here);
            if (at == no_position) {
                return violate("P4", label(id, number) + " is no state from " + show(least) +
                                         " to " + show(here));
            }
        }
        see(id, client, number, at);
        if (!op.asked.watch || (told.error != Errc::ok && op.asked.call != Call::exists)) return;
        Watch watch;
        watch.path = op.asked.path;
        watch.changes = &model_.changes(
            op.asked.call == Call::children ? WatchKind::children : WatchKind::data, watch.path);
        watch.from_min = at, watch.from_max = known ? at : here;
        // A read of before, whose answer and event come after it, in one poll.
        const Zxid installed = of_replica(installs_, client.home);
        if (installed > watch.from_max) jump(watch, installed);
        client.armed[number] = watch;
    }

    // What a watcher as of a zxid hears at once, before its answer: a state that there was.
    void told_since(Holder id, Client& client, std::size_t number, EventType type,
                    const Bytes& path, Zxid zxid) {
        Op& op = client.ops[number];
        const auto what = static_cast<coord::Watched>(op.asked.number);
        const Model::Version* const node = model_.at(path, zxid);
        const bool present = node != nullptr && node->present;
        const bool stays = what == coord::Watched::persistent;
        bool right = zxid <= model_.frontier() && path == op.asked.path && !client.dropped;
        if (type == EventType::deleted) {
            right = right && !present && what != coord::Watched::absence;
        } else if (type == EventType::created) {
            const bool is_due = stays ? op.asked.least < zxid : what == coord::Watched::absence;
            right = right && present && node->stat.czxid == zxid && is_due;
        } else if (type == EventType::data_changed) {
            const bool is_due = stays || what == coord::Watched::data;
            right = right && present && node->stat.mzxid == zxid && is_due;
        } else {
            const bool is_due = stays || what == coord::Watched::children;
            right = right && present && node->stat.pzxid == zxid && is_due;
        }
        const bool is_state = type == EventType::created || type == EventType::deleted;
        const bool is_old = !is_state && zxid <= op.asked.least;
        op.fired += 1;
        if (!right || is_old || (op.fired > 1 && !stays)) {
            violate("P8", "an event at " + show(zxid) + " that is none since " +
                              show(op.asked.least) + ": " + label(id, number));
        }
        observed_ = (std::max)(observed_, zxid);
    }
    bool has_changed(const Asked& asked, Zxid zxid) const {
        const auto what = static_cast<coord::Watched>(asked.number);
        const Model::Version* const node = model_.at(asked.path, zxid);
        const bool present = node != nullptr && node->present;
        if (!present) return what == coord::Watched::data || what == coord::Watched::children;
        const bool by_data = asked.least < node->stat.mzxid;
        const bool by_children = asked.least < node->stat.pzxid;
        if (what == coord::Watched::data) return by_data;
        if (what == coord::Watched::children) return by_children;
        return what == coord::Watched::persistent && (by_data || by_children);
    }
    // It has been set at a state from `least` to `here`: what has changed by then it has heard of.
    void judge_since(Holder id, Client& client, const Op& op, std::size_t number, const Told& told,
                     Zxid here) {
        const bool is_closing = client.ops.back().asked.call == Call::close;
        if (told.error == Errc::cancelled && is_closing) return;
        if (told.error != Errc::ok) violate("P8", "no watcher is set by " + label(id, number));
        client.synced = (std::max)(client.synced, op.asked.least);
        const Zxid least = (std::max)(client.seen, client.synced);
        if (op.fired == 0 && has_changed(op.asked, least) && has_changed(op.asked, here)) {
            violate("P8", "what has changed since " + show(op.asked.least) +
                              " is not told: " + label(id, number));
        }
        const Zxid installed = of_replica(installs_, client.home);
        const auto what = static_cast<coord::Watched>(op.asked.number);
        if (what == coord::Watched::persistent) {
            client.staying[number] = {op.asked.path, false, model_.first_change(least), here,
                                      installed};
            return;
        }
        if (op.fired > 0) return;
        Watch watch;
        watch.path = op.asked.path;
        watch.changes = &model_.changes(
            what == coord::Watched::children ? WatchKind::children : WatchKind::data, watch.path);
        watch.from_min = least, watch.from_max = here;
        if (installed > watch.from_max) jump(watch, installed);
        client.armed[number] = watch;
    }

    // An answer shows the log up to that zxid: every event up to there must have come before.
    void see(Holder id, Client& client, std::size_t number, Zxid zxid) {
        (void)number;
        if (zxid > client.seen) client.seen = zxid;
        observed_ = (std::max)(observed_, zxid);
        expect_events(id, client, zxid);
    }

    void expect_events(Holder id, Client& client, Zxid zxid) {
        for (auto watch = client.armed.begin(); watch != client.armed.end();) {
            const Model::Change* due =
                Model::first_change(*watch->second.changes, watch->second.from_max);
            const bool late = due != nullptr && due->zxid <= zxid;
            if (late && may_be_spent(id, watch->second, due->zxid)) {
                silences_ += 1;
            } else if (late) {
                violate("P7", "an answer at " + show(zxid) + " comes before the event at " +
                                  show(due->zxid) + ": " + label(id, watch->first));
            }
            watch = late ? client.armed.erase(watch) : std::next(watch);
        }
        const std::vector<Model::PathChange>& all = model_.all_changes();
        for (auto& [number, watch] : client.staying) {
            for (; watch.next < all.size() && all[watch.next].zxid <= zxid; watch.next++) {
                if (!is_due(id, watch, all[watch.next])) continue;
                violate("P7", "an answer at " + show(zxid) + " comes before the event at " +
                                  show(all[watch.next].zxid) + ": " + label(id, number));
            }
        }
    }

    // Whether that change is one that the session may not hear of. What came with a snapshot was
    // judged by what that has.
    bool is_hidden(Holder id, const Watch& watch, EventType type, Zxid zxid) const {
        const Model::Version* const is = model_.at(watch.path, zxid);
        const bool is_here = is != nullptr && is->present;
        const bool shows = is_here && model_.may_read(id.session, is->acl, zxid);
        if (watch.jumped_to == zxid) return is_here && !shows;
        for (const Model::Change& each : *watch.changes) {
            if (each.zxid != zxid || each.type != type) continue;
            if (model_.may_read(id.session, each.acl, zxid)) return false;
            if (&each == &watch.changes->back() || (&each + 1)->zxid != zxid) return true;
        }
        return false;
    }
    // Whether a change may have fired it, unheard. It was set somewhere from from_min on.
    bool may_be_spent(Holder id, const Watch& watch, Zxid until) const {
        const auto after = std::upper_bound(
            watch.changes->begin(), watch.changes->end(), watch.from_min,
            [](Zxid z, const Model::Change& change) { return z < change.zxid; });
        for (auto each = after; each != watch.changes->end() && each->zxid <= until; ++each) {
            if (!model_.may_read(id.session, each->acl, each->zxid)) return true;
            if (each->zxid > watch.jumped_to) continue;
            const Model::Version* const is = model_.at(watch.path, watch.jumped_to);
            const bool is_here = is != nullptr && is->present;
            if (!is_here || !model_.may_read(id.session, is->acl, watch.jumped_to)) return true;
        }
        return false;
    }

    static Bytes label(std::size_t stream) { return "stream " + std::to_string(stream); }
    static bool is_streamed(const Bytes& path, const Model::PathChange& change) {
        if (change.type == EventType::children_changed) return false;
        const std::size_t size = path.size();
        if (change.path.compare(0, size, path) != 0) return false;
        return size == 1 || change.path.size() == size || change.path[size] == '/';
    }
    // The place, among all that ever changed, of the first one after it.
    std::size_t place_of(coord::ChangePosition position) const {
        const std::vector<Model::PathChange>& all = model_.all_changes();
        std::size_t place = model_.first_change(position.zxid);
        if (position.index == coord::ChangePosition::whole) return place;
        while (place > 0 && all[place - 1].zxid == position.zxid) place--;
        for (std::uint32_t left = position.index; left > 0 && place < all.size(); place++) {
            left -= all[place].type == EventType::children_changed ? 0u : 1u;
        }
        return place;
    }
    // Of the first one that is for that stream.
    std::size_t place_of(coord::ChangePosition position, Stream stream) const {
        stream.next = place_of(position);
        return next_of(stream);
    }
    std::size_t next_of(Stream stream) const { return skip(stream), stream.next; }
    void skip(Stream& stream) const {
        const std::vector<Model::PathChange>& all = model_.all_changes();
        while (stream.next < all.size() && !is_streamed(stream.path, all[stream.next])) {
            stream.next++;
        }
    }
    // Where the transaction does not change the node once more, the model knows what it was.
    bool is_what_it_was(std::size_t place, const coord::Change& change) const {
        const std::vector<Model::PathChange>& all = model_.all_changes();
        const Zxid zxid = all[place].zxid;
        if (is_stats(change.path)) return true;  // what the machine writes there is not told
        for (std::size_t i = place + 1; i < all.size() && all[i].zxid == zxid; i++) {
            if (all[i].path == change.path) return true;
        }
        if (change.type == EventType::deleted) {
            for (std::size_t i = place; i > 0 && all[i - 1].zxid == zxid; i--) {
                if (all[i - 1].path == change.path) return true;
            }
            const Model::Version* const was = model_.at(change.path, Zxid(zxid.value - 1));
            return was != nullptr && same(was->stat, change.stat) && change.bytes.empty();
        }
        const Model::Version* const node = model_.at(change.path, zxid);
        return node != nullptr && same(node->stat, change.stat) && node->data == change.bytes &&
               node->is_null == change.is_null;
    }

    static bool concerns(const Staying& watch, const Model::PathChange& change) {
        if (!watch.is_recursive) return change.path == watch.path;
        if (change.type == EventType::children_changed) return false;
        const std::size_t size = watch.path.size();
        if (change.path.compare(0, size, watch.path) != 0) return false;
        return size == 1 || change.path.size() == size || change.path[size] == '/';
    }
    // Whether it must be told of this one by itself.
    bool is_due(Holder id, const Staying& watch, const Model::PathChange& change) const {
        return change.zxid > (std::max)(watch.from_max, watch.jumped_to) &&
               concerns(watch, change) && model_.may_read(id.session, change.acl, change.zxid);
    }

    // It hears of each change, in order; of those that were jumped over once for each node.
    void at_staying(Holder id, std::size_t number, EventType type, const Bytes& path,
                    Zxid zxid) {
        Client& client = clients_[id];
        Staying& watch = client.staying[number];
        const std::vector<Model::PathChange>& all = model_.all_changes();
        if (client.dropped) violate("P8", "an event after the end: " + label(id, number));
        if (zxid <= client.seen && zxid > watch.from_max) {
            violate("P7", "an event at " + show(zxid) + " after an answer at " + show(client.seen) +
                              ": " + label(id, number));
        }
        observed_ = (std::max)(observed_, zxid);
        const bool is_child = type == EventType::children_changed;
        std::size_t place = watch.next;
        if (zxid == watch.jumped_to) {
            const auto is_of_it = [&](const Model::PathChange& change) {
                const bool is_below = change.type == EventType::children_changed;
                return change.path == path && (is_child || !is_below);  // made anew: both
            };
            while (place < all.size() && all[place].zxid <= zxid && !is_of_it(all[place])) place++;
            if (place < all.size() && is_of_it(all[place]) && concerns(watch, all[place])) return;
        }
        for (place = watch.next; place < all.size() && all[place].zxid <= zxid; place++) {
            const Model::PathChange& change = all[place];
            const bool is_it = change.zxid == zxid && change.type == type && change.path == path;
            const bool is_shown = model_.may_read(id.session, change.acl, zxid);
            if (is_it && is_shown && concerns(watch, change)) return void(watch.next = place + 1);
            if (is_due(id, watch, change)) break;
        }
        violate("P8", "an event at " + show(zxid) + " of " + path +
                          " that is not the next change: " + label(id, number));
    }

    // By the request that is answered next, which names the path.
    void removed(Holder id, std::size_t number, EventType type, const Bytes& path) {
        Client& client = clients_[id];
        const bool is_asked = client.next < client.ops.size() &&
                              client.ops[client.next].asked.call == Call::remove_watches &&
                              client.ops[client.next].asked.path == path;
        const bool is_staying = type == EventType::persistent_watch_removed;
        const bool is_there = is_staying ? client.staying.erase(number) == 1
                                         : client.armed.erase(number) == 1;
        client.removed += 1;
        if (!is_asked || !is_there || client.ops[number].asked.path != path) {
            violate("P8", "a watcher is removed that nobody has removed: " + label(id, number));
        }
    }

    void judge_removal(Holder id, Client& client, const Op& op, std::size_t number,
                       const Told& told, Zxid here) {
        const Errc right = client.removed == 0 ? Errc::no_watcher : Errc::ok;
        if (told.error != right) violate("P8", "not as many are removed by " + label(id, number));
        client.removed = 0;
        const auto is_left = [&](const auto& each) { return each.second.path == op.asked.path; };
        for (auto watch = client.armed.begin(); watch != client.armed.end();) {
            const bool is_spent = is_left(*watch) && may_be_spent(id, watch->second, here);
            watch = is_spent ? client.armed.erase(watch) : std::next(watch);
        }
        if (std::any_of(client.armed.begin(), client.armed.end(), is_left) ||
            std::any_of(client.staying.begin(), client.staying.end(), is_left)) {
            violate("P8", "a watcher is left by " + label(id, number));
        }
    }

    bool is_state_at(Holder id, const Asked& asked, const Told& told, Zxid zxid) const {
        const Model::Version* node = model_.at(asked.path, zxid);
        const bool present = node != nullptr && node->present;
        const Who& who = model_.who_at(id.session, zxid);
        const bool is_refused = present && asked.call != Call::exists &&
                                !allows(node->acl, who, asked.call == Call::get_acl ? 17 : 1);
        if (told.error == Errc::no_auth) return is_refused;
        if (told.error != Errc::ok) return told.error == Errc::no_node && !present;
        if (!present || is_refused || zxid > model_.frontier()) return false;
        if (!same(node->stat, told.stat)) return false;
        const bool is_same = node->data == told.data && node->is_null == told.is_null;
        if (asked.call == Call::get) return is_same;
        if (asked.call == Call::get_acl) return told.acl == shown_acl(node->acl, who);
        if (asked.call == Call::children) return model_.had_children(asked.path, zxid, told.names);
        return true;
    }

    // The first zxid from..to at which the answer is right: an answer without one. Who the session
    // is changes by its own requests alone, of which none comes in between.
    Zxid first_match(Holder id, const Asked& asked, const Told& told, Zxid from, Zxid to) const {
        if (is_state_at(id, asked, told, from)) return from;
        const std::vector<Model::Version>* all = model_.versions(asked.path);
        if (all == nullptr) return no_position;
        Zxid first = no_position;
        for (const Model::Version& version : *all) {
            if (version.zxid <= from) continue;
            if (version.zxid > to || first != no_position) break;
            if (is_state_at(id, asked, told, version.zxid)) first = version.zxid;
        }
        // With who it is changes what it may read.
        for (const auto& [since, who] : model_.identities(id.session)) {
            if (since <= from || since > to || (first != no_position && first < since)) continue;
            if (is_state_at(id, asked, told, since)) first = since;
        }
        return first;
    }

    const std::uint32_t drift_permille_;
    Model model_;
    std::vector<Entry> log_;
    std::vector<Position> positions_;  // of replica 1, 2, 3 ...
    std::uint64_t upgrades_ = 0;
    std::uint64_t upgrades_refused_ = 0;
    std::uint64_t throttled_ = 0;
    std::vector<Zxid> installs_;       // and the snapshot that it has installed last
    std::vector<Zxid> begins_;         // and what its memory begins with
    std::map<std::size_t, Stream> streams_;
    std::uint64_t streamed_ = 0;
    std::map<std::uint32_t, std::pair<std::uint32_t, std::uint64_t>> leaders_;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> epochs_;
    std::uint32_t newest_epoch_ = 0;
    std::map<Holder, Client> clients_;
    std::set<SessionId> to_be_attached_;
    std::map<SessionId, Time> expired_at_;
    std::map<Bytes, Lock> locks_;
    Zxid observed_;  // by any client
    Zxid committed_;  // by any replica
    bool expiry_forbidden_ = false;
    std::map<Bytes, Zxid> tokens_;  // the highest that has guarded a write, of each lock
    std::uint64_t guarded_ = 0;
    std::uint64_t specials_ = 0;    // parts that only a multi has, beside conditions, and were done
    std::uint64_t taken_over_ = 0;  // take_overs among them
    std::uint64_t guards_lost_ = 0;
    std::uint64_t writes_acknowledged_ = 0;
    std::uint64_t reads_compared_ = 0;
    std::uint64_t expiries_ = 0;
    std::uint64_t grants_ = 0;
    std::uint64_t reads_shared_ = 0;
    std::uint64_t downgrades_ = 0;
    std::uint64_t events_ = 0;
    std::uint64_t reaps_ = 0;
    std::uint64_t void_reaps_ = 0;
    std::uint64_t over_quota_ = 0;
    std::uint64_t reconfigs_ = 0;
    std::uint64_t refusals_ = 0;  // with no_auth, of reads and writes
    std::uint64_t doubts_ = 0;  // writes that ended so, and of these those that were executed
    std::uint64_t doubts_executed_ = 0;
    std::uint64_t silences_ = 0;  // events that watchers did not hear of, as it must be
    std::vector<Bytes> violations_;
};

}  // namespace sim
