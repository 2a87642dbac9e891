package nbd

import "github.com/pojntfx/go-nbd/pkg/protocol"

// Numbers of the NBD protocol that go-nbd's protocol package lacks. What exists
// only on the wire is spelled as the NBD specification spells it
// (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md); what a
// backend or a client's caller sees has a Go name.
const (
	NBD_FLAG_NO_ZEROES = uint16(1 << 1)

	NBD_FLAG_C_FIXED_NEWSTYLE = uint32(1 << 0)
	NBD_FLAG_C_NO_ZEROES      = uint32(1 << 1)

	NBD_OPT_EXPORT_NAME       = uint32(1)
	NBD_OPT_STRUCTURED_REPLY  = uint32(8)
	NBD_OPT_LIST_META_CONTEXT = uint32(9)
	NBD_OPT_SET_META_CONTEXT  = uint32(10)

	NBD_REP_META_CONTEXT = uint32(4)
	NBD_REP_ERR_POLICY   = uint32(2 | 1<<31)
	NBD_REP_ERR_INVALID  = uint32(3 | 1<<31)
	NBD_REP_ERR_TOO_BIG  = uint32(9 | 1<<31)

	NBD_STRUCTURED_REPLY_MAGIC = uint32(0x668e33ef)

	NBD_REPLY_FLAG_DONE = uint16(1 << 0)

	NBD_REPLY_TYPE_NONE         = uint16(0)
	NBD_REPLY_TYPE_OFFSET_DATA  = uint16(1)
	NBD_REPLY_TYPE_OFFSET_HOLE  = uint16(2)
	NBD_REPLY_TYPE_BLOCK_STATUS = uint16(5)
	NBD_REPLY_TYPE_ERROR        = uint16(1<<15 + 1)
	NBD_REPLY_TYPE_ERROR_OFFSET = uint16(1<<15 + 2)

	NBD_STATE_HOLE = uint32(1 << 0)
	NBD_STATE_ZERO = uint32(1 << 1)

	NBD_EIO       = uint32(5)
	NBD_ENOMEM    = uint32(12)
	NBD_ENOSPC    = uint32(28)
	NBD_EOVERFLOW = uint32(75)
	NBD_ENOTSUP   = uint32(95)
	NBD_ESHUTDOWN = uint32(108)
)

// TransmissionFlags say what an export can do (NBD_FLAG_* in the specification).
type TransmissionFlags uint16

// The transmission flags that this package sets or looks at.
const (
	HasFlags        = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS)
	IsReadOnly      = TransmissionFlags(1 << 1)
	SendFlush       = TransmissionFlags(1 << 2)
	SendFUA         = TransmissionFlags(1 << 3)
	SendTrim        = TransmissionFlags(1 << 5)
	SendWriteZeroes = TransmissionFlags(1 << 6)
	SendDF          = TransmissionFlags(1 << 7)
	CanMultiConn    = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
	SendCache       = TransmissionFlags(1 << 10)
	SendFastZero    = TransmissionFlags(1 << 11)
)

// Command is what a request asks for (NBD_CMD_* in the specification).
type Command uint16

// The commands of the transmission phase. A backend sees all but CmdDisc.
const (
	CmdRead        = Command(protocol.TRANSMISSION_TYPE_REQUEST_READ)
	CmdWrite       = Command(protocol.TRANSMISSION_TYPE_REQUEST_WRITE)
	CmdDisc        = Command(protocol.TRANSMISSION_TYPE_REQUEST_DISC)
	CmdFlush       = Command(3)
	CmdTrim        = Command(4)
	CmdCache       = Command(5)
	CmdWriteZeroes = Command(6)
	CmdBlockStatus = Command(7)
)

var commandNames = [...]string{"read", "write", "disconnect", "flush", "trim", "cache", "write zeroes", "block status"}

// String names the command as a log line would.
func (c Command) String() string {
	if int(c) < len(commandNames) {
		return commandNames[c]
	}
	return "unknown command"
}

// Modifies reports whether the command changes what later reads return.
func (c Command) Modifies() bool {
	return c == CmdWrite || c == CmdTrim || c == CmdWriteZeroes
}

// CommandFlags modify one request (NBD_CMD_FLAG_* in the specification).
type CommandFlags uint16

// The command flags. FlagFUA may come with every command; the others only with
// the command that they belong to.
const (
	// FlagFUA: what this request changed is durable before its reply.
	FlagFUA = CommandFlags(1 << 0)
	// FlagNoHole: WRITE_ZEROES must leave the range allocated.
	FlagNoHole = CommandFlags(1 << 1)
	// FlagDF: a READ is answered in one piece. This server always does.
	FlagDF = CommandFlags(1 << 2)
	// FlagReqOne: BLOCK_STATUS wants the first extent only.
	FlagReqOne = CommandFlags(1 << 3)
	// FlagFastZero: WRITE_ZEROES fails with ENOTSUP, having changed nothing,
	// unless it is faster than writing zeroes.
	FlagFastZero = CommandFlags(1 << 4)
)

// Sizes of the fixed parts, in bytes; doc.go has the tables.
const (
	requestSize     = 28
	simpleReplySize = 16
	chunkHeaderSize = 20
	offsetDataSize  = chunkHeaderSize + 8
)

// MaxPayload is the longest READ or WRITE that is executed, in bytes. Clients
// that know nothing of block sizes may send 32 MiB; some send twice that.
const MaxPayload = 64 << 20
