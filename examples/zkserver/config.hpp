// zoo.cfg: what it says, as values; what is wrong with it, with its line; what it says that nobody
// here listens to, as warnings. Text in, values out: files are read in main.cpp.
//
// It is a Java properties file: `key=value`, with blanks around either, `#` or `!` before a
// comment. A value goes on in the next line where it ends in one backslash. Two backslashes are
// one; one alone stands for itself, and at the end of what begins as a Windows path it does so,
// too, since that is what people mean who write dataDir=C:\zookeeper\data\.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace zkserver {

struct Member {  // server.N=host:peer_port:election_port[:role][;[client_host:]client_port]
    std::uint32_t id = 0;
    std::string host;
    int peer_port = 0;
    int election_port = 0;
    bool is_observer = false;
    std::string client_host;
    int client_port = 0;   // 0: not said
    int group = 0;         // of the quorum, where there are groups
    int weight = 1;
    std::string text;      // as it is written
    int line = 0;

    // As /zookeeper/config has it, without the role: what replicas say of each other, too.
    std::string address() const {
        const auto host_of = [](const std::string& name) {
            return name.find(':') == std::string::npos ? name : "[" + name + "]";
        };
        std::string whole = host_of(host) + ":" + std::to_string(peer_port) + ":" +
                            std::to_string(election_port);
        if (client_port == 0) return whole;
        whole += ";" + (client_host.empty() ? "0.0.0.0" : host_of(client_host));
        return whole + ":" + std::to_string(client_port);
    }
};

struct Config {
    int tick_ms = 0;
    int init_limit = 0;
    int sync_limit = 0;
    std::string data_dir;
    std::string data_log_dir;
    std::string client_address;        // "" = the loopback
    int client_port = 0;
    int connections_per_address = 60;  // 0: no limit
    int session_timeout_min_ms = -1;   // -1: two ticks
    int session_timeout_max_ms = -1;   // -1: twenty
    int snapshots_kept = 3;
    int purge_hours = 0;
    int snapshot_every = 100000;
    int outstanding_limit = 1000;
    int frame_bytes_max = 0xfffff;
    int reap_interval_ms = 60000;
    int reaps_per_minute = 10000;
    bool is_observer = false;          // peerType
    bool enforce_quota = false;
    bool extended_types = false;
    bool reconfig = false;
    bool may_be_standalone = true;
    bool skip_acl = false;
    std::string super_digest;
    bool admin_server = false;
    int admin_port = 8080;
    std::string admin_address = "127.0.0.1";
    std::set<std::string> words{"srvr"};
    bool all_words = false;
    std::vector<Member> members;
    std::map<int, std::string> groups;
    std::map<int, int> weights;
    std::string members_file;          // dynamicConfigFile: server.N and the like are there
    std::string key_file;              // coord.ensembleKeyFile
    int peer_port = 0;                 // coord.peerPort; 0: as in the server's own line
    std::vector<std::uint32_t> feeders;  // coord.feeders: whom an observer learns from
    std::vector<std::string> warnings;

    // One server, or none, is an ensemble of one unless standaloneEnabled=false.
    bool is_standalone() const {
        return members.empty() || (members.size() == 1 && may_be_standalone);
    }
    const Member* find_member(std::uint32_t id) const {
        for (const Member& member : members) {
            if (member.id == id) return &member;
        }
        return nullptr;
    }
    bool allows(const std::string& word) const { return all_words || words.count(word) != 0; }
    int timeout_min_ms() const {
        return session_timeout_min_ms < 0 ? tick_ms * 2 : session_timeout_min_ms;
    }
    int timeout_max_ms() const {
        return session_timeout_max_ms < 0 ? tick_ms * 20 : session_timeout_max_ms;
    }
};

class ConfigReader {
public:
    explicit ConfigReader(Config& config) : config_(config) {}

    using Load = std::function<bool(const std::string& path, std::string& text)>;

    // RETURNS "", or "line N: ..." with what is wrong, or that something is missing. load reads
    // what dynamicConfigFile names.
    std::string read(const std::string& text, const Load& load = {}) {
        take_lines(text);
        if (error_.empty() && !config_.members_file.empty()) {
            std::string more;
            line_ = 0;
            const bool is_there = load && load(config_.members_file, more);
            if (!is_there) error_ = config_.members_file + ": cannot be read";
            if (is_there) read_members(more);
            if (is_there && !error_.empty()) error_ = config_.members_file + ": " + error_;
        }
        if (error_.empty()) judge();
        return error_;
    }
    // Of lines that say who the members are, and nothing else.
    std::string read_members(const std::string& text) {
        are_members_alone_ = true, seen_.clear();
        take_lines(text);
        if (error_.empty()) judge_groups();
        return error_;
    }

    static std::string trimmed(const std::string& text) {
        const char* blanks = " \t\r\n\f";
        const std::size_t first = text.find_first_not_of(blanks);
        if (first == std::string::npos) return "";
        return text.substr(first, text.find_last_not_of(blanks) - first + 1);
    }
    // RETURNS whether text is a whole number of that range, and nothing else.
    static bool to_number(const std::string& text, long least, long most, int& number) {
        const std::size_t other = text.find_first_not_of("0123456789-");
        if (text.empty() || other != std::string::npos) return false;
        char* end = nullptr;
        const long value = std::strtol(text.c_str(), &end, 10);
        if (*end != 0 || text.size() > 11 || value < least || value > most) return false;
        number = static_cast<int>(value);
        return true;
    }

private:
    void take_lines(const std::string& text) {
        std::size_t at = 0;
        for (line_ = 0; at < text.size() && error_.empty();) {
            take_line(take_logical_line(text, at));
        }
    }
    void fail(const std::string& why) {
        if (error_.empty()) error_ = "line " + std::to_string(line_) + ": " + why;
    }
    void warn(const std::string& what) {
        config_.warnings.push_back("line " + std::to_string(line_) + ": " + what);
    }

    std::string take_logical_line(const std::string& text, std::size_t& at) {
        std::string whole;
        bool goes_on = true;
        while (goes_on && at < text.size()) {
            const std::size_t end = (std::min)(text.find('\n', at), text.size());
            std::string line = trimmed(text.substr(at, end - at));
            at = end + 1, line_ += 1;
            const bool is_comment = whole.empty() && !line.empty() && (line[0] == '#' ||
                                                                       line[0] == '!');
            std::size_t slashes = 0;
            while (slashes < line.size() && line[line.size() - 1 - slashes] == '\\') slashes += 1;
            goes_on = !is_comment && slashes % 2 == 1 && !is_windows_path(line);
            if (goes_on) line.pop_back();
            whole += line;
        }
        return whole;
    }
    static bool is_windows_path(const std::string& line) {
        const std::size_t equals = line.find_first_of("=:");
        if (equals == std::string::npos) return false;
        const std::string value = trimmed(line.substr(equals + 1));
        return value.size() > 2 && value[1] == ':' && value[2] == '\\';
    }

    void take_line(const std::string& line) {
        if (line.empty() || line[0] == '#' || line[0] == '!') return;
        const std::size_t end = line.find_first_of("=: \t");
        const std::string key = trimmed(line.substr(0, end));
        std::string value = end == std::string::npos ? "" : trimmed(line.substr(end));
        const bool has_sign = !value.empty() && (value[0] == '=' || value[0] == ':');
        if (has_sign) value = trimmed(value.substr(1));
        for (std::size_t i = 0; i + 1 < value.size(); i++) {
            if (value[i] == '\\' && value[i + 1] == '\\') value.erase(i, 1);
        }
        if (!seen_.insert(key).second) warn(key + " is there more than once: this one counts");
        if (take_member(key, value)) return;
        if (are_members_alone_) {
            if (key != "version") fail(key + " says nothing of members");
            return;
        }
        if (take_number(key, value) || take_switch(key, value) || take_text(key, value)) return;
        warn("unknown key " + key + ": it has no effect");
    }

    bool take_number(const std::string& key, const std::string& value) {
        struct Number {
            const char* key;
            int Config::*place;
            long least, most;
        };
        static const Number numbers[] = {
            {"tickTime", &Config::tick_ms, 1, 3600000},
            {"initLimit", &Config::init_limit, 1, 1000000},
            {"syncLimit", &Config::sync_limit, 1, 1000000},
            {"clientPort", &Config::client_port, 1, 65535},
            {"maxClientCnxns", &Config::connections_per_address, 0, 1000000},
            {"minSessionTimeout", &Config::session_timeout_min_ms, -1, 2147483647},
            {"maxSessionTimeout", &Config::session_timeout_max_ms, -1, 2147483647},
            {"autopurge.snapRetainCount", &Config::snapshots_kept, 0, 1000000},
            {"autopurge.purgeInterval", &Config::purge_hours, 0, 100000},
            {"snapCount", &Config::snapshot_every, 2, 2147483647},
            {"globalOutstandingLimit", &Config::outstanding_limit, 1, 100000000},
            {"jute.maxbuffer", &Config::frame_bytes_max, 1024, 64 * 1024 * 1024},
            {"znode.container.checkIntervalMs", &Config::reap_interval_ms, 10, 2147483647},
            {"znode.container.maxPerMinute", &Config::reaps_per_minute, 1, 100000000},
            {"admin.serverPort", &Config::admin_port, 0, 65535},
            {"coord.peerPort", &Config::peer_port, 1, 65535},
        };
        for (const Number& number : numbers) {
            if (key != number.key) continue;
            if (!to_number(value, number.least, number.most, config_.*number.place)) {
                fail(key + " wants a number from " + std::to_string(number.least) + " to " +
                     std::to_string(number.most) + ", and is '" + value + "'");
            }
            return true;
        }
        return false;
    }

    bool take_switch(const std::string& key, const std::string& value) {
        struct Switch {
            const char* key;
            bool Config::*place;
        };
        static const Switch switches[] = {
            {"enforceQuota", &Config::enforce_quota},
            {"extendedTypesEnabled", &Config::extended_types},
            {"reconfigEnabled", &Config::reconfig},
            {"standaloneEnabled", &Config::may_be_standalone},
            {"skipACL", &Config::skip_acl},
            {"admin.enableServer", &Config::admin_server},
        };
        for (const Switch& one : switches) {
            if (key != one.key) continue;
            const bool on = value == "true" || value == "yes";
            if (!on && value != "false" && value != "no") {
                fail(key + " wants true or false, and is '" + value + "'");
            }
            config_.*one.place = on;
            return true;
        }
        return false;
    }

    bool take_text(const std::string& key, const std::string& value) {
        if (key == "dataDir") return config_.data_dir = value, true;
        if (key == "dataLogDir") return config_.data_log_dir = value, true;
        if (key == "clientPortAddress") return config_.client_address = value, true;
        if (key == "admin.serverAddress") return config_.admin_address = value, true;
        if (key == "dynamicConfigFile") return config_.members_file = value, true;
        if (key == "coord.ensembleKeyFile") return config_.key_file = value, true;
        if (key == "coord.feeders") return take_feeders(value), true;
        if (key == "4lw.commands.whitelist") return take_words(value), true;
        if (key == "peerType") {
            if (value != "observer" && value != "participant") {
                fail("peerType wants participant or observer, and is '" + value + "'");
            }
            return config_.is_observer = value == "observer", true;
        }
        if (key == "DigestAuthenticationProvider.superDigest" ||
            key == "zookeeper.DigestAuthenticationProvider.superDigest") {
            if (value.find(':') == std::string::npos) fail(key + " wants user:digest");
            return config_.super_digest = value, true;
        }
        return false;
    }

    void take_feeders(const std::string& value) {
        config_.feeders.clear();
        for (std::size_t at = 0; at <= value.size();) {
            const std::size_t comma = (std::min)(value.find(',', at), value.size());
            int id = 0;
            if (!to_number(trimmed(value.substr(at, comma - at)), 1, 255, id)) {
                return fail("coord.feeders wants numbers of servers, as in 1,2, and is '" + value +
                            "'");
            }
            at = comma + 1;
            config_.feeders.push_back(static_cast<std::uint32_t>(id));
        }
    }

    void take_words(const std::string& value) {
        config_.words.clear(), config_.all_words = false;
        for (std::size_t at = 0; at <= value.size();) {
            const std::size_t comma = (std::min)(value.find(',', at), value.size());
            const std::string word = trimmed(value.substr(at, comma - at));
            at = comma + 1;
            if (word == "*") config_.all_words = true;
            if (!word.empty()) config_.words.insert(word);
        }
    }

    // server.N, group.N and weight.N.
    bool take_member(const std::string& key, const std::string& value) {
        const std::size_t dot = key.find('.');
        const std::string kind = key.substr(0, dot);
        if (dot == std::string::npos) return false;
        if (kind != "server" && kind != "group" && kind != "weight") return false;
        int id = 0;
        if (!to_number(key.substr(dot + 1), 1, 255, id)) {
            return fail("the number in " + key + " is not one from 1 to 255"), true;
        }
        if (kind == "server") return take_server(id, value), true;
        if (kind == "group") return config_.groups[id] = value, true;
        if (!to_number(value, 0, 65535, config_.weights[id])) fail(key + " wants a number");
        return true;
    }

    // Parts between colons; an address of v6 is in brackets.
    static std::vector<std::string> split(const std::string& text) {
        std::vector<std::string> parts(1);
        bool in_brackets = false;
        for (const char c : text) {
            if (c == '[' || c == ']') {
                in_brackets = c == '[';
            } else if (c == ':' && !in_brackets) {
                parts.emplace_back();
            } else {
                parts.back().push_back(c);
            }
        }
        return parts;
    }

    void take_server(int id, const std::string& value) {
        Member member;
        member.id = static_cast<std::uint32_t>(id);
        member.text = value, member.line = line_;
        const std::size_t semicolon = value.find(';');
        std::string peer = trimmed(value.substr(0, semicolon));
        if (peer.find('|') != std::string::npos) {
            return fail("server." + std::to_string(id) + " has several addresses: one is enough");
        }
        const std::vector<std::string> parts = split(peer);
        const std::string wrong = "server." + std::to_string(id) +
                                  " wants host:port:port[:role][;clientPort], and is '" + value +
                                  "'";
        if (parts.size() != 3 && parts.size() != 4) return fail(wrong);
        member.host = parts[0];
        const bool are_ports = to_number(parts[1], 1, 65535, member.peer_port) &&
                               to_number(parts[2], 1, 65535, member.election_port);
        if (member.host.empty() || member.host.size() > 100 || !are_ports) return fail(wrong);
        const std::string role = parts.size() == 4 ? parts[3] : "participant";
        if (role != "participant" && role != "observer") return fail(wrong);
        member.is_observer = role == "observer";
        if (semicolon != std::string::npos && !take_client(value.substr(semicolon + 1), member)) {
            return fail(wrong);
        }
        for (Member& other : config_.members) {
            if (other.id == member.id) return static_cast<void>(other = member);
        }
        config_.members.push_back(member);
    }
    // As in ZooKeeper: where there are groups, each voter is in one of them.
    void judge_groups() {
        std::map<std::uint32_t, int> group_of;
        for (const auto& [group, ids] : config_.groups) {
            const std::string name = "group." + std::to_string(group);
            for (const std::string& text : split(ids)) {
                int id = 0;
                const bool is_member = to_number(trimmed(text), 1, 255, id) &&
                                       config_.find_member(static_cast<std::uint32_t>(id));
                if (!is_member) return fail_all(name + ": there is no server." + text);
                int& place = group_of[static_cast<std::uint32_t>(id)];
                if (place != 0) return fail_all("server." + text + " is in two groups");
                place = group;
            }
        }
        for (Member& member : config_.members) {
            const auto weight = config_.weights.find(static_cast<int>(member.id));
            if (weight != config_.weights.end()) member.weight = weight->second;
            if (config_.groups.empty() || member.is_observer) continue;
            member.group = group_of[member.id];
            if (member.group != 0) continue;
            return fail_all("server." + std::to_string(member.id) + " is in no group");
        }
    }
    void fail_all(const std::string& why) {
        if (error_.empty()) error_ = why;
    }

    bool take_client(const std::string& text, Member& member) {
        const std::size_t more = text.find(';');
        if (more != std::string::npos) warn("a port for TLS: there is none here");
        const std::vector<std::string> parts = split(trimmed(text.substr(0, more)));
        if (parts.size() > 2) return false;
        if (parts.size() == 2) member.client_host = parts[0];
        return to_number(parts.back(), 1, 65535, member.client_port);
    }

    void judge() {
        line_ = 0;
        if (config_.snapshots_kept < 3) {
            config_.snapshots_kept = 3;
            config_.warnings.push_back("autopurge.snapRetainCount is at least 3");
        }
        judge_groups();
        if (config_.data_log_dir.empty()) config_.data_log_dir = config_.data_dir;
        if (config_.tick_ms == 0) error_ = "tickTime is not set";
        if (config_.data_dir.empty()) error_ = "dataDir is not set";
        if (!error_.empty()) return;
        if (config_.timeout_min_ms() > config_.timeout_max_ms()) {
            error_ = "minSessionTimeout is more than maxSessionTimeout";
        }
        if (config_.members.empty()) {
            if (config_.client_port == 0) error_ = "clientPort is not set";
            if (config_.is_observer) error_ = "peerType=observer wants servers to observe";
        } else if (!config_.is_standalone()) {
            if (config_.init_limit == 0) error_ = "initLimit is not set";
            if (config_.sync_limit == 0) error_ = "syncLimit is not set";
        }
    }

    Config& config_;
    std::string error_;
    std::set<std::string> seen_;
    int line_ = 0;
    bool are_members_alone_ = false;
};

// What is in a file of keys: one or two, each 64 hexadecimal digits in a line of its own; lines
// that are empty, or begin with #, do not count. RETURNS "", or what is wrong, never part of a key.
inline std::string read_keys(const std::string& text, std::vector<std::string>& keys) {
    const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    };
    for (std::size_t at = 0, line = 1; at < text.size(); line++) {
        const std::size_t end = (std::min)(text.find('\n', at), text.size());
        const std::string hex = ConfigReader::trimmed(text.substr(at, end - at));
        at = end + 1;
        if (hex.empty() || hex[0] == '#') continue;
        std::string key;
        for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
            const int high = digit(hex[i]), low = digit(hex[i + 1]);
            if (high < 0 || low < 0) break;
            key += static_cast<char>(high * 16 + low);
        }
        if (hex.size() != 64 || key.size() != 32) {
            return "line " + std::to_string(line) + " is not 64 hexadecimal digits";
        }
        keys.push_back(key);
    }
    return keys.empty() || keys.size() > 2 ? "it wants one key, or two" : "";
}

// What is in the file myid: a number from 1 to 255, or 0 where it is none.
inline std::uint32_t read_myid(const std::string& text) {
    int id = 0;
    const std::string line = ConfigReader::trimmed(text.substr(0, text.find('\n')));
    return ConfigReader::to_number(line, 1, 255, id) ? static_cast<std::uint32_t>(id) : 0;
}

}  // namespace zkserver
