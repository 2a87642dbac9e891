package wanem

import (
	"fmt"
	"strings"
)

// Kind says what a distance was measured along, and so by how much the fibre
// under it is longer. The zero value is Fibre.
type Kind uint8

const (
	// Fibre counts kilometres of the fibre itself, as an OTDR or a contract does.
	Fibre Kind = iota
	// Air counts the great circle between the sites; a leased line on a short
	// list of rights of way (roads, railways) is about 1.3 times as long.
	Air
	// Internet counts the great circle as well, but the path is what public
	// routing happens to take: about 2.1 times as long.
	Internet
)

// kinds is indexed by Kind.
var kinds = [...]struct {
	name   string
	factor float64
}{
	Fibre:    {"fibre", 1.0},
	Air:      {"air", 1.3},
	Internet: {"internet", 2.1},
}

func (k Kind) valid() bool { return int(k) < len(kinds) }

// Factor returns the kilometres of fibre under one kilometre of this kind.
// The kind must be one of the constants.
func (k Kind) Factor() float64 { return kinds[k].factor }

// String returns the name that ParseKind reads.
func (k Kind) String() string {
	if !k.valid() {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return kinds[k].name
}

// ParseKind reads "fibre", "air" or "internet".
func ParseKind(s string) (Kind, error) {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		if strings.EqualFold(s, k.name) {
			return Kind(i), nil
		}
		names[i] = k.name
	}
	return 0, fmt.Errorf("parse distance kind %q: unknown: use one of %s", s, strings.Join(names, ", "))
}

// MarshalText and UnmarshalText let JSON and flags carry a kind by its name.
func (k Kind) MarshalText() ([]byte, error) {
	if !k.valid() {
		return nil, fmt.Errorf("marshal distance kind %d: unknown: use a constant of package wanem", uint8(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText is ParseKind.
func (k *Kind) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKind(string(text))
	return err
}
