// Fuzz target: bytes that claim to be a message of a peer. They decode or they are corrupt; what
// decodes is encoded to the same bytes again, so that there is one spelling of each message.
// How to run it: fuzz.hpp.
//
// ctest: --runs=300000
//
// Input: u8 flags, then the bytes; flag 1: the checksum and the magic are put right first.
#include "fuzz.hpp"

namespace {

using fuzz::Bytes;
using fuzz::BytesView;
using fuzz::Errc;

constexpr std::size_t crc_at = 4;

void put_right(Bytes& bytes) {
    if (bytes.size() < 8) return;
    fuzz::put_u32(bytes, 0, 0x636f7201);  // FORMAT: magic and version
    // A proposal's entries have checksums of their own; they come after the payload's length.
    constexpr std::size_t type_at = 32, entries_at = coord::message_header_bytes + 8 + 8 + 4;
    BytesView covered = bytes;
    const bool is_proposal = bytes.size() > type_at &&
                             bytes[type_at] == static_cast<char>(coord::MessageType::proposal);
    if (is_proposal) covered = covered.substr(0, entries_at);
    fuzz::put_u32(bytes, crc_at, coord::crc32c(covered.substr(8)));
}

coord::Message message_of(std::uint8_t type, BytesView payload) {
    coord::Message message;
    message.type = static_cast<coord::MessageType>(type);
    message.from = coord::PeerId{1}, message.to = coord::PeerId{2};
    message.ensemble = 7, message.nonce = 0x0102030405060708;
    message.epoch = 3, message.attempt = 4, message.leader = coord::PeerId{1};
    message.accepted_epoch = 3, message.current_epoch = 2;
    message.zxid = coord::Zxid{3, 9}, message.crc = 0xdeadbeef, message.commit = coord::Zxid{3, 8};
    message.digest = 0x1112131415161718, message.sequence = 5, message.confirmed = 6;
    message.touch = 7, message.offset = 8, message.total = 100, message.phase = 1;
    message.payload = payload;
    return message;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    Bytes bytes(fuzz::view(data, size).substr(1));
    if ((data[0] & 1) != 0) put_right(bytes);
    coord::Message message;
    const Errc error = coord::decode_message(bytes, message);
    if (error != Errc::ok) {
        fuzz::expect(error == Errc::corrupt, "a message decodes or is corrupt");
        return 0;
    }
    const BytesView whole = bytes;
    fuzz::expect(message.payload.empty() || (message.payload.data() >= whole.data() &&
                                             message.payload.data() + message.payload.size() <=
                                                 whole.data() + whole.size()),
                 "the payload is a part of the message");
    Bytes again;
    coord::encode_message(message, again);
    fuzz::expect(again == bytes, "a message has one encoding");
    fuzz::expect(bytes.size() <= coord::message_overhead_bytes + message.payload.size(),
                 "the overhead of a message is bounded");
    return 0;
}

std::vector<Bytes> fuzz::seeds() {
    std::vector<Bytes> out;
    for (std::uint8_t type = 1; type <= coord::message_type_last; type++) {
        for (const BytesView payload : {BytesView(), BytesView("some payload")}) {
            out.emplace_back(1, '\1');
            coord::encode_message(message_of(type, payload), out.back());
        }
    }
    return out;
}
