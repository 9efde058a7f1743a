package redfish

import (
	"github.com/racklet/racklet/firmware/wire"
)

var slotRefs = [...]string{"SlotA", "SlotB"}

func slotLetter(slot uint8) string {
	if slot == wire.SlotNone {
		return ""
	}
	return slotRefs[slot&1][4:]
}

func slotObject(name string, i *wire.SlotInfo) object {
	o := object{
		"Name": name, "State": i.State.String(), "Version": i.Version.String(), "SecurityVersion": i.SecurityVersion,
		"Digest": digestText(i.Digest), "Reason": "", "Expected": "", "Seen": "",
	}
	if !i.Failure.IsZero() {
		o["Reason"], o["Expected"], o["Seen"] = i.Failure.Reason.String(), i.Failure.Expected.String(), i.Failure.Seen.String()
	}
	return o
}

// slotOem is slotObject as Oem.Racklet of a resource.
func slotOem(name string, i *wire.SlotInfo) object {
	o := slotObject(name, i)
	o["@odata.type"] = "#RackletBootOption" + oemVersion + ".Racklet"
	return o
}

// boot shows the boot override. Its targets are the two boot slots: UefiTarget with the slot in
// UefiTargetBootSourceOverride, or for one boot UefiBootNext with the slot in BootNext.
func (s *Service) boot(u *unit) object {
	st := &u.state
	o := object{
		"BootSourceOverrideEnabled": st.BootMode.String(), "BootSourceOverrideMode": "UEFI", "BootSourceOverrideTarget": "None",
		"BootSourceOverrideTarget@Redfish.AllowableValues":     bootTargets,
		"UefiTargetBootSourceOverride":                         nil,
		"UefiTargetBootSourceOverride@Redfish.AllowableValues": slotRefs[:],
		"BootNext": nil, "BootOrder": slotRefs[:], "BootOptions": ref(systemURI(u) + "/BootOptions"),
	}
	if st.BootMode != wire.BootDisabled && st.BootOverride != wire.SlotNone {
		o["BootSourceOverrideTarget"], o["UefiTargetBootSourceOverride"] = "UefiTarget", slotRefs[st.BootOverride&1]
		if st.BootMode == wire.BootOnce {
			o["BootNext"] = slotRefs[st.BootOverride&1]
		}
	}
	return o
}

var bootTargets = []string{"None", "UefiTarget", "UefiBootNext"}

func (s *Service) bootOption(u *unit, p []string) object {
	for i, name := range slotRefs {
		if p[1] == name {
			return object{
				"@odata.type": "#BootOption.v1_0_6.BootOption", "@odata.id": systemURI(u) + "/BootOptions/" + name, "Id": name,
				"Name": "Boot slot " + name[4:], "DisplayName": "Boot slot " + name[4:], "BootOptionReference": name, "UefiDevicePath": name,
				"BootOptionEnabled": u.slots[i].State == wire.SlotValid,
				"Oem":               object{"Racklet": slotOem(name[4:], &u.slots[i])},
			}
		}
	}
	return nil
}

// bootRequest collects what a PATCH says about the boot override.
type bootRequest struct {
	mode, target, uefi, next string
	given                    bool
}

// desired turns a request into a boot override. What is not given stays as it is.
func (b *bootRequest) desired(st *wire.UnitState) (wire.BootMode, uint8, *message) {
	mode := b.mode
	slot := st.BootOverride
	choose := func(name string) {
		for i, r := range slotRefs {
			if r == name {
				slot = uint8(i)
			}
		}
	}
	if mode == "" {
		switch {
		case b.target == "None":
			mode = "Disabled"
		case b.target == "UefiBootNext" || b.target == "" && b.next != "":
			mode = "Once"
		case st.BootMode == wire.BootDisabled && (b.target != "" || b.uefi != ""):
			mode = "Once"
		default:
			mode = st.BootMode.String()
		}
	}
	const p = "#/Boot/BootSourceOverrideTarget"
	if mode == "Disabled" {
		return wire.BootDisabled, wire.SlotNone, nil // whatever target stands beside it
	}
	switch b.target {
	case "None", "Pxe":
		m := msgConflict("BootSourceOverrideTarget", "BootSourceOverrideEnabled", p)
		return 0, 0, &m
	case "UefiBootNext":
		if mode != "Once" {
			m := msgConflict("BootSourceOverrideEnabled", "BootSourceOverrideTarget", "#/Boot/BootSourceOverrideEnabled")
			return 0, 0, &m
		}
		choose(b.next)
	default:
		choose(b.uefi)
		if b.uefi == "" {
			choose(b.next)
		}
	}
	if slot == wire.SlotNone {
		m := msgConflict("BootSourceOverrideEnabled", "UefiTargetBootSourceOverride", "#/Boot/UefiTargetBootSourceOverride")
		return 0, 0, &m
	}
	if mode == "Once" {
		return wire.BootOnce, slot, nil
	}
	return wire.BootContinuous, slot, nil
}
