// A session's requests as a ZooKeeper's server wants them, and its answers as the session does.
// Nothing here knows of connections.
#pragma once

#include "../zkserver/jute.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace zookeeper_client {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using zkserver::JuteReader;
using zkserver::JuteWriter;
using zkserver::MultiHeader;
namespace op = zkserver::op;

// The directory on the servers that a client's "/" is; empty where it is theirs.
class Chroot {
public:
    explicit Chroot(Bytes path) : path_(path == "/" ? Bytes() : std::move(path)) {}
    Bytes to_server(BytesView path) const {
        if (path_.empty()) return Bytes(path);
        return path == "/" ? path_ : path_ + Bytes(path);
    }
    // What is elsewhere, which no server says unasked, is nowhere.
    Bytes from_server(BytesView path) const {
        if (path_.empty()) return Bytes(path);
        const bool is_below = path.substr(0, path_.size()) == path_ &&
                              (path.size() == path_.size() || path[path_.size()] == '/');
        if (!is_below) return Bytes();
        return path.size() == path_.size() ? Bytes("/") : Bytes(path.substr(path_.size()));
    }
    const Bytes& path() const { return path_; }

private:
    Bytes path_;
};

// What has been asked for, as it is sent, and what is needed to make an answer of the server's.
struct Asked {
    struct Part {  // of a multi, or of a read of several
        std::int32_t type = 0;
        coord::CreateMode mode = coord::CreateMode::persistent;
        std::int32_t data_length = 0;
        coord::Page page;
    };
    coord::Request::Kind kind = coord::Request::Kind::get;
    std::int32_t type = 0;       // the server's; 0: it is answered without one
    Bytes body;                  // behind the header
    Bytes path;                  // as the session knows it; of add_auth the scheme
    Bytes data;                  // of add_auth the credential
    std::size_t root_bytes = 0;
    coord::Page page;
    std::vector<Part> parts;
    coord::Zxid least;
    coord::WatcherType watcher_type = coord::WatcherType::any;
    coord::Watched watched = coord::Watched::data;
    coord::Zxid since;
    std::shared_ptr<const coord::Watcher> watcher;
    coord::Completion done;
    Errc error = Errc::ok;       // refused already: only its turn has to come

    bool is_write() const {
        using Kind = coord::Request::Kind;
        return kind == Kind::create || kind == Kind::remove || kind == Kind::set ||
               kind == Kind::multi || kind == Kind::set_acl;
    }
    bool is_read() const {
        using Kind = coord::Request::Kind;
        return kind == Kind::exists || kind == Kind::get || kind == Kind::children ||
               kind == Kind::get_acl || kind == Kind::read || kind == Kind::watch_since;
    }
    coord::OpCode op_code() const {
        using Kind = coord::Request::Kind;
        switch (kind) {
            case Kind::create: return coord::OpCode::create;
            case Kind::remove: return coord::OpCode::remove;
            case Kind::set: return coord::OpCode::set;
            case Kind::set_acl: return coord::OpCode::set_acl;
            default: return coord::OpCode::multi;
        }
    }
};

// What an answer has in it. error is of the whole.
struct Answer : coord::Found {
    Bytes path;
    std::vector<coord::Part> parts;
    std::vector<coord::Found> found;
};

inline bool is_sound_path(BytesView path, bool is_numbered) {
    return coord::is_valid_path(is_numbered ? Bytes(path) + "0000000000" : Bytes(path));
}

// -------------------------------------------------------------------------------------------------
// Requests

class Encoder {
public:
    Encoder(const Chroot& chroot, const coord::Request& request, Asked& asked)
        : chroot_(chroot), request_(request), asked_(asked), out_(asked.body) {}
    // RETURNS what is wrong with it. unimplemented: no server of ZooKeeper's can do it.
    Errc encode() {
        using Kind = coord::Request::Kind;
        const bool has_path = asked_.kind != Kind::sync && asked_.kind != Kind::close &&
                              asked_.kind != Kind::multi && asked_.kind != Kind::read &&
                              asked_.kind != Kind::add_auth && asked_.kind != Kind::whoami &&
                              asked_.kind != Kind::reconfig;
        const bool is_numbered =
            asked_.kind == Kind::create && coord::is_sequential(request_.mode);
        if (asked_.kind == Kind::create && !is_mode()) return Errc::bad_arguments;
        if (has_path && !is_sound_path(request_.path, is_numbered)) return Errc::bad_arguments;
        switch (asked_.kind) {
            case Kind::create: return create();
            case Kind::remove:
                if (request_.path == "/") return Errc::bad_arguments;
                return path(op::remove), out_.i32(request_.version), Errc::ok;
            case Kind::set:
                path(op::set_data), out_.bytes(request_.data), out_.i32(request_.version);
                return Errc::ok;
            case Kind::set_acl:
                path(op::set_acl), out_.acl(request_.acl), out_.i32(request_.version);
                return Errc::ok;
            case Kind::exists: return path(op::exists), watch();
            case Kind::get: return path(op::get_data), watch();
            case Kind::children: return path(op::get_children2), watch();
            case Kind::get_acl: return path(op::get_acl), Errc::ok;
            case Kind::sync: return asked_.type = op::sync, out_.bytes(top()), Errc::ok;
            case Kind::close: return asked_.type = op::close_session, Errc::ok;
            case Kind::whoami: return asked_.type = op::who_am_i, Errc::ok;
            case Kind::add_auth:
                asked_.type = op::auth;
                out_.i32(0), out_.bytes(request_.path), out_.bytes(request_.data);
                return Errc::ok;
            case Kind::multi: return multi();
            case Kind::read: return read();
            case Kind::add_watch: return add_watch();
            case Kind::remove_watches: return judge_type(coord::WatcherType::children);
            case Kind::watch_since: return watch_since();
            case Kind::reconfig: break;
        }
        return Errc::unimplemented;
    }
    Bytes top() const { return chroot_.path().empty() ? Bytes("/") : chroot_.path(); }

private:
    void path(std::int32_t type) {
        asked_.type = type;
        out_.bytes(chroot_.to_server(request_.path));
    }
    Errc watch() { return out_.boolean(asked_.watcher != nullptr), Errc::ok; }
    bool is_mode() const {
        const auto mode = static_cast<std::int32_t>(request_.mode);
        return mode >= 0 && mode <= 6;
    }
    static Errc judge_ttl(coord::CreateMode mode, coord::Duration ttl) {
        const std::int64_t ms = ttl.ns / 1000000;
        const bool is_sound = coord::has_ttl(mode) ? ms > 0 && ms <= coord::ttl_ms_max
                                                   : ttl == coord::Duration{};
        return is_sound ? Errc::ok : Errc::bad_arguments;
    }
    static std::int32_t create_type(coord::CreateMode mode, std::int32_t plain) {
        if (coord::has_ttl(mode)) return op::create_ttl;
        return mode == coord::CreateMode::container ? op::create_container : plain;
    }
    void write_create(BytesView at, BytesView data, const coord::Acl& acl, coord::CreateMode mode,
                      coord::Duration ttl) {
        out_.bytes(chroot_.to_server(at)), out_.bytes(data);
        out_.acl(acl.empty() ? coord::open_acl() : acl);
        out_.i32(static_cast<std::int32_t>(mode));
        if (coord::has_ttl(mode)) out_.i64(ttl.ns / 1000000);
    }
    Errc create() {
        const Errc error = judge_ttl(request_.mode, request_.ttl);
        if (error != Errc::ok) return error;
        asked_.type = create_type(request_.mode, op::create2);
        write_create(request_.path, request_.data, request_.acl, request_.mode, request_.ttl);
        return Errc::ok;
    }
    Errc judge_type(coord::WatcherType least) const {
        const bool is_type = request_.watcher_type >= least &&
                             request_.watcher_type <= coord::WatcherType::persistent_recursive;
        return is_type ? Errc::ok : Errc::bad_arguments;
    }
    Errc add_watch() {
        const Errc error = judge_type(coord::WatcherType::persistent);
        if (asked_.watcher == nullptr || error != Errc::ok) return Errc::bad_arguments;
        path(op::add_watch);
        const bool is_all = request_.watcher_type == coord::WatcherType::persistent_recursive;
        out_.i32(is_all ? 1 : 0);
        return Errc::ok;
    }
    // ZooKeeper has it for clients that come back, and asks for no more than that.
    Errc watch_since() {
        const bool is_sound = asked_.watcher != nullptr && request_.since != coord::newest &&
                              request_.watched <= coord::Watched::persistent;
        if (!is_sound) return Errc::bad_arguments;
        asked_.type = op::set_watches2;
        out_.zxid(request_.since);
        for (unsigned list = 0; list < 5; list++) {
            const bool is_this = list == static_cast<unsigned>(request_.watched);
            out_.count(is_this ? 1 : 0);
            if (is_this) out_.bytes(chroot_.to_server(request_.path));
        }
        return Errc::ok;
    }
    Errc multi() {
        asked_.type = op::multi;
        if (request_.parts.size() > coord::Limits().multi_parts_max) return Errc::too_many;
        Errc error = Errc::ok;
        for (const coord::Op& part : request_.parts) {
            if (error == Errc::ok) error = add_part(part);
        }
        if (error != Errc::ok) return error;
        if (request_.parts.empty()) asked_.type = 0;
        MultiHeader{-1, true, -1}.write(out_);
        return Errc::ok;
    }
    Errc add_part(const coord::Op& part) {
        using coord::OpCode;
        const bool is_create = part.code == OpCode::create;
        const bool is_plain = is_create || part.code == OpCode::remove ||
                              part.code == OpCode::set || part.code == OpCode::check;
        if (!is_plain) return Errc::unimplemented;
        if (!is_sound_path(part.path, is_create && coord::is_sequential(part.mode))) {
            return Errc::bad_arguments;
        }
        Asked::Part planned;
        planned.type = is_create ? create_type(part.mode, op::create)
                       : part.code == OpCode::remove ? op::remove
                       : part.code == OpCode::set ? op::set_data : op::check_version;
        planned.mode = part.mode;
        planned.data_length = static_cast<std::int32_t>(part.data.size());
        MultiHeader{planned.type, false, -1}.write(out_);
        if (is_create) {
            const Errc error = judge_ttl(part.mode, part.ttl);
            if (error != Errc::ok) return error;
            write_create(part.path, part.data, part.acl, part.mode, part.ttl);
        } else {
            out_.bytes(chroot_.to_server(part.path));
            if (part.code == OpCode::set) out_.bytes(part.data);
            out_.i32(part.version);
        }
        asked_.parts.push_back(std::move(planned));
        return Errc::ok;
    }
    // One query is a request of its own; several, of which ZooKeeper knows two kinds, are one.
    Errc read() {
        using Kind = coord::Query::Kind;
        if (request_.queries.size() > coord::Limits().multi_parts_max) return Errc::too_many;
        const bool is_found = asked_.done.kind() == coord::Completion::Kind::found;
        const bool is_single = request_.queries.size() == 1;
        if (is_found && !is_single) return Errc::bad_arguments;
        asked_.type = request_.queries.empty() ? 0 : op::multi_read;
        for (const coord::Query& query : request_.queries) {
            const std::int32_t type = type_of(query.kind);
            const bool is_begun = query.kind == Kind::ephemerals;
            if (type == 0) return Errc::unimplemented;
            if (!is_begun && !coord::is_valid_path(query.path)) return Errc::bad_arguments;
            const bool is_listed = query.kind == Kind::get || query.kind == Kind::children;
            const bool is_one = is_single && (is_found || !is_listed);
            if (!is_one && !is_listed) return Errc::unimplemented;
            Asked::Part planned;
            planned.type = !is_one && query.kind == Kind::children ? op::get_children : type;
            planned.page = query.page;
            if (is_one) asked_.type = type;
            if (!is_one) MultiHeader{planned.type, false, -1}.write(out_);
            out_.bytes(chroot_.to_server(query.path));
            const bool has_watch = is_listed || query.kind == Kind::exists;
            if (has_watch) out_.boolean(false);
            asked_.parts.push_back(std::move(planned));
        }
        if (asked_.type == op::multi_read) MultiHeader{-1, true, -1}.write(out_);
        return Errc::ok;
    }
    static std::int32_t type_of(coord::Query::Kind kind) {
        using Kind = coord::Query::Kind;
        switch (kind) {
            case Kind::exists: return op::exists;
            case Kind::get: return op::get_data;
            case Kind::children: return op::get_children2;
            case Kind::ephemerals: return op::get_ephemerals;
            case Kind::descendants: return op::get_all_children_number;
            case Kind::acl: return op::get_acl;
            case Kind::list:
            case Kind::identities: break;
        }
        return 0;
    }

    const Chroot& chroot_;
    const coord::Request& request_;
    Asked& asked_;
    JuteWriter out_;
};

// -------------------------------------------------------------------------------------------------
// Answers

class Decoder {
public:
    Decoder(const Chroot& chroot, const Asked& asked, coord::SessionId session, BytesView body)
        : chroot_(chroot), asked_(asked), session_(session), in_(body) {}
    // RETURNS whether the bytes are an answer to that. answer.error and its zxid are those of the
    // header.
    bool decode(Answer& answer) {
        if (asked_.type == op::multi) {
            if (in_.left() > 0) decode_multi(answer);
            return in_.ok();
        }
        if (answer.error != Errc::ok) return true;
        if (asked_.type == op::multi_read) return decode_several(answer), in_.ok();
        const coord::Page& page = asked_.parts.empty() ? asked_.page : asked_.parts[0].page;
        decode_one(asked_.type, page, answer, &answer.path);
        return in_.ok();
    }

private:
    void decode_one(std::int32_t type, const coord::Page& page, coord::Found& found, Bytes* path) {
        switch (type) {
            case op::create2:
            case op::create_container:
            case op::create_ttl:
                *path = chroot_.from_server(in_.bytes());
                found.stat = in_.stat();
                break;
            case op::set_data:
            case op::set_acl:
            case op::exists: found.stat = in_.stat(); break;
            case op::get_data: take_data(found); break;
            case op::get_children2:
                found.names = in_.names(), found.stat = in_.stat();
                cut_page(page, found);
                break;
            case op::get_children:
                found.names = in_.names();
                cut_page(page, found);
                break;
            case op::get_ephemerals:
                found.names = in_.names();
                for (Bytes& name : found.names) name = chroot_.from_server(name);
                cut_page(page, found);
                break;
            case op::get_all_children_number:
                found.count = static_cast<std::uint64_t>((std::max)(in_.i32(), 0));
                break;
            case op::get_acl:
                take_acl(found.acl, true);
                found.stat = in_.stat();
                break;
            case op::who_am_i: take_acl(found.acl, false); break;
            default: break;
        }
    }
    void take_data(coord::Found& found) {
        const BytesView bytes = in_.bytes();
        found.is_null = coord::is_null(bytes);
        found.bytes.assign(bytes);
        found.stat = in_.stat();
    }
    void take_acl(coord::Acl& acl, bool has_permissions) {
        for (std::size_t left = in_.count(8); left > 0 && in_.ok(); left--) {
            const auto bits = has_permissions ? static_cast<std::uint32_t>(in_.i32()) : 0;
            const BytesView scheme = in_.bytes();
            acl.add(bits & coord::permission::all, scheme, in_.bytes());
        }
    }
    // The server gives all of them, in no order; a page is made here, of one moment.
    static void cut_page(const coord::Page& page, coord::Found& found) {
        std::vector<Bytes> names;
        for (Bytes& name : found.names) {
            const bool begins = name.compare(0, page.prefix.size(), page.prefix) == 0;
            if (begins && (page.after.empty() || page.after < name)) {
                names.push_back(std::move(name));
            }
        }
        std::sort(names.begin(), names.end());
        const std::size_t most = (std::min)(page.limit, std::size_t{coord::Limits().list_max});
        found.more = names.size() > most;
        if (found.more) names.resize(most);
        found.names = std::move(names);
    }
    void decode_multi(Answer& answer) {
        for (const Asked::Part& planned : asked_.parts) {
            MultiHeader header;
            header.read(in_);
            if (!in_.ok() || header.done) break;
            answer.parts.emplace_back();
            coord::Part& part = answer.parts.back();
            if (header.type == op::error) {
                part.error = static_cast<Errc>(in_.i32());
                const bool is_cause = part.error != Errc::ok &&
                                      part.error != Errc::runtime_inconsistency;
                if (is_cause && answer.error == Errc::ok) answer.error = part.error;
                continue;
            }
            take_part(planned, header.type, answer.zxid, part);
        }
        MultiHeader end;
        end.read(in_);
        const bool is_whole = answer.parts.size() == asked_.parts.size() && end.done;
        if (answer.error == Errc::ok && !is_whole) in_.fail();
    }
    // Of a create the server says the path alone: the rest of its Stat is what a node begins with,
    // but for the time.
    void take_part(const Asked::Part& planned, std::int32_t type, coord::Zxid zxid,
                   coord::Part& part) {
        if (type == op::set_data) part.stat = in_.stat();
        const bool is_create = type == op::create || type == op::create2 ||
                               type == op::create_container || type == op::create_ttl;
        if (!is_create) return;
        part.path = chroot_.from_server(in_.bytes());
        if (type != op::create) {
            part.stat = in_.stat();
            return;
        }
        part.stat.czxid = part.stat.mzxid = part.stat.pzxid = zxid;
        part.stat.data_length = planned.data_length;
        if (coord::is_ephemeral(planned.mode)) part.stat.ephemeral_owner = session_;
    }
    void decode_several(Answer& answer) {
        for (const Asked::Part& planned : asked_.parts) {
            MultiHeader header;
            header.read(in_);
            if (!in_.ok() || header.done) return in_.fail();
            answer.found.emplace_back();
            coord::Found& found = answer.found.back();
            found.zxid = answer.zxid;
            if (header.type == op::error) {
                found.error = static_cast<Errc>(in_.i32());
            } else {
                decode_one(planned.type, planned.page, found, nullptr);
            }
        }
    }

    const Chroot& chroot_;
    const Asked& asked_;
    const coord::SessionId session_;
    JuteReader in_;
};

inline void cut_root(std::size_t bytes, Bytes& path) {
    if (bytes == 0 || path.size() < bytes) return;
    path.erase(0, bytes);
    if (path.empty()) path = "/";
}

// Ends a request with what has come of it.
inline void complete(const Asked& asked, Answer&& answer) {
    using Kind = coord::Completion::Kind;
    const Errc error = answer.error;
    const bool good = error == Errc::ok;
    const coord::Completion& done = asked.done;
    cut_root(asked.root_bytes, answer.path);
    for (coord::Part& part : answer.parts) cut_root(asked.root_bytes, part.path);
    const bool has_paths = asked.type == op::get_ephemerals;
    if (has_paths) for (Bytes& name : answer.names) cut_root(asked.root_bytes, name);
    switch (done.kind()) {
        case Kind::none:
        case Kind::opened: break;
        case Kind::created:
            done(good ? coord::Result<coord::Created>({answer.path, answer.stat}) : error);
            break;
        case Kind::stat: done(good ? coord::Result<coord::Stat>(answer.stat) : error); break;
        case Kind::data:
            done(good ? coord::Result<coord::Data>({answer.bytes, answer.stat, answer.zxid,
                                                    answer.is_null})
                      : error);
            break;
        case Kind::children:
            done(good ? coord::Result<coord::Children>({std::move(answer.names), answer.stat,
                                                        answer.zxid, answer.more})
                      : error);
            break;
        case Kind::done: done(coord::Result<void>(error)); break;
        case Kind::multi: done(coord::Multi{error, std::move(answer.parts)}); break;
        case Kind::acl:
            done(good ? coord::Result<coord::NodeAcl>({std::move(answer.acl), answer.stat})
                      : error);
            break;
        case Kind::found:
            done(good ? coord::Result<coord::Found>(std::move(static_cast<coord::Found&>(answer)))
                      : error);
            break;
        case Kind::multi_read:
            if (asked.type != op::multi_read && !asked.parts.empty() &&
                (good || error == Errc::no_node || error == Errc::no_auth)) {
                const coord::Zxid zxid = answer.zxid;
                std::vector<coord::Found> one(1);
                one[0] = std::move(static_cast<coord::Found&>(answer));
                done(coord::Result<coord::MultiRead>({zxid, std::move(one)}));
                break;
            }
            done(good ? coord::Result<coord::MultiRead>({answer.zxid, std::move(answer.found)})
                      : error);
            break;
    }
}

}  // namespace zookeeper_client
