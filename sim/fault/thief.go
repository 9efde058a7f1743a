package fault

import (
	"crypto/ed25519"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
)

// ThiefsFloors is a floor statement above floors that is signed with a BMC's device key instead of the owners' keys.
func ThiefsFloors(key ed25519.PrivateKey, rackID [16]byte, floors wire.Floors) []byte {
	s := trust.FloorStatement{RackID: rackID, Sequence: floors.Sequence + 1000, RootVersion: floors.RootVersion, BootSecurity: floors.BootSecurity}
	msg, err := s.MarshalBinary()
	if err != nil {
		return nil
	}
	return trust.AppendSigned(msg, []trust.Signature{trust.Sign(trust.DomainFloor, key, msg)})
}
