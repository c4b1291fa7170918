// Who is in the ensemble: server.N and its like, as the engine's members, and a reconfig's texts.
#pragma once

#include "config.hpp"
#include "jute.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace zkserver {

inline coord::Member member_of(const Member& read) {
    coord::Member member;
    member.id = coord::PeerId{read.id};
    member.votes = !read.is_observer;
    member.weight = static_cast<std::uint32_t>(read.weight);
    member.group = static_cast<std::uint32_t>(read.group);
    member.address = read.address();
    return member;
}

// Of a member's address: where its peers find it. RETURNS false where there is none.
inline bool read_address(const coord::Member& member, std::string& host, int& port) {
    Config config;
    if (member.address.empty()) return false;
    const std::string line = "server." + std::to_string(member.id.value) + "=" + member.address;
    if (!ConfigReader(config).read_members(line).empty() || config.members.empty()) return false;
    host = config.members[0].host, port = config.members[0].peer_port;
    return true;
}

// What a client's reconfig asks for: texts that may be null, and the version of the members that it
// knows. In text between lines and between commas there are server.N=..., as in zoo.cfg; of the
// whole set group.N and weight.N, too.
struct AskedReconfig {
    BytesView joining, leaving, members;
    std::int64_t version = -1;
    std::size_t voters_min = 2;  // 1 where standaloneEnabled=false

    // RETURNS ok, or what ZooKeeper answers to texts like these.
    Errc read(const std::vector<coord::Member>& now, coord::Reconfig& change) const {
        if (version == 0) return Errc::bad_version;  // no members have that one
        if (version > 0) change.version = coord::Zxid{static_cast<std::uint64_t>(version)};
        if (!coord::is_null(members)) {
            const Errc error = read_whole(change);
            const bool is_small = error == Errc::ok && count_voters({}, change) < voters_min;
            return is_small ? Errc::bad_arguments : error;
        }
        // One that joins, or leaves, leaves the groups of the others as they are: so in ZooKeeper
        // such members change all at once.
        for (const coord::Member& member : now) {
            if (member.group != 0 || member.weight != 1) return Errc::bad_arguments;
        }
        std::vector<coord::Member> joins;
        if (!read_servers(joining, joins)) return Errc::bad_arguments;
        change.joining = joins;
        if (!read_leaving(change)) return Errc::marshalling_error;
        return count_voters(now, change) < voters_min ? Errc::bad_arguments : Errc::ok;
    }

private:
    static std::size_t count_voters(const std::vector<coord::Member>& now,
                                    const coord::Reconfig& change) {
        std::map<std::uint32_t, bool> votes;
        for (const coord::Member& member : now) votes[member.id.value] = member.votes;
        for (const coord::PeerId id : change.leaving) votes[id.value] = false;
        for (const coord::Member& member : change.joining) votes[member.id.value] = member.votes;
        for (const coord::Member& member : change.members) votes[member.id.value] = member.votes;
        std::size_t count = 0;
        for (const auto& [id, does_vote] : votes) count += does_vote ? 1u : 0u;
        return count;
    }
    static bool read_servers(BytesView text, std::vector<coord::Member>& found) {
        Config config;
        if (coord::is_null(text)) return true;
        std::string lines(text);
        std::replace(lines.begin(), lines.end(), ',', '\n');
        if (!ConfigReader(config).read_members(lines).empty()) return false;
        for (const Member& member : config.members) {
            if (member.client_port == 0) return false;  // ZooKeeper wants it here
            found.push_back(member_of(member));
        }
        return true;
    }
    Errc read_whole(coord::Reconfig& change) const {
        const bool is_alone = coord::is_null(joining) && coord::is_null(leaving);
        if (!is_alone || !read_servers(members, change.members)) return Errc::bad_arguments;
        return change.members.empty() ? Errc::bad_arguments : Errc::ok;
    }
    bool read_leaving(coord::Reconfig& change) const {
        if (coord::is_null(leaving)) return true;
        const std::string ids(leaving);
        for (std::size_t at = 0; at <= ids.size();) {
            const std::size_t comma = (std::min)(ids.find(',', at), ids.size());
            const std::string text = ConfigReader::trimmed(ids.substr(at, comma - at));
            int id = 0;
            at = comma + 1;
            if (text.empty()) continue;
            if (!ConfigReader::to_number(text, 1, 255, id)) return false;
            change.leaving.push_back(coord::PeerId{static_cast<std::uint32_t>(id)});
        }
        return true;
    }
};

}  // namespace zkserver
