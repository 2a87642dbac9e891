package sites

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The part of linux/pkt_cls.h and linux/tc_act/tc_nat.h that the netlink package lacks.
const (
	actKind, actOptions = 1, 2 // TCA_ACT_KIND, TCA_ACT_OPTIONS
	natParms            = 1    // TCA_NAT_PARMS
	natSource           = 1    // TCA_NAT_FLAG_EGRESS: the source, not the destination
	actPipe, actOK      = 3, 0 // TC_ACT_PIPE: go on with the next action
)

// translate changes the addresses of packets that arrive at an interface, without
// state: source from is sent on as fromSeen, destination toSeen as to.
func translate(name string, from, fromSeen, toSeen, to netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	index := link.Attrs().Index
	ingress := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_INGRESS, Handle: netlink.MakeHandle(0xffff, 0)}}
	if err := netlink.QdiscAdd(ingress); err != nil {
		return fmt.Errorf("add the ingress qdisc of %s: %w%s", name, err, moduleHint(err))
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: netlink.MakeHandle(0xffff, 0),
		Info: netlink.MakeHandle(1, nl.Swap16(unix.ETH_P_IP))})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("matchall")))
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	actions := options.AddRtAttr(nl.TCA_MATCHALL_ACT, nil)
	addNAT(actions, 1, actPipe, natSource, from, fromSeen)
	addNAT(actions, 2, actOK, 0, toSeen, to)
	req.AddData(options)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("translate addresses at %s: %w%s", name, err, moduleHint(err))
	}
	return nil
}

// addNAT adds one action: struct tc_nat has index, capabilities, what to do next, two
// counts, then the addresses, a mask and flags, four bytes each.
func addNAT(actions *nl.RtAttr, number, next int, flags uint32, from, to netip.Addr) {
	parms := make([]byte, 0, 36)
	for _, field := range []uint32{0, 0, uint32(next), 0, 0} {
		parms = binary.NativeEndian.AppendUint32(parms, field)
	}
	parms = append(parms, from.AsSlice()...)
	parms = append(parms, to.AsSlice()...)
	parms = append(parms, 255, 255, 255, 255)
	parms = binary.NativeEndian.AppendUint32(parms, flags)
	action := actions.AddRtAttr(number, nil)
	action.AddRtAttr(actKind, nl.ZeroTerminated("nat"))
	action.AddRtAttr(actOptions, nil).AddRtAttr(natParms, parms)
}

func moduleHint(err error) string {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return ": the kernel lacks a module: modprobe -a sch_ingress cls_matchall act_nat (scripts/vm.sh boots one that has them)"
	}
	return ""
}
