package rack

import (
	"cmp"
	"slices"
)

// A Reason is a named refusal: a check of the boot chain that failed, or a
// condition that keeps a unit from running. The name travels in events and
// states of a BMC (at most MaxReason bytes), together with what was expected
// and what was seen; text and cure are looked up where people read.
type Reason struct {
	Name string `json:"name"` // dotted, lower case: "slot.chunk"
	Text string `json:"text"` // what is the matter, one sentence without a full stop
	Cure string `json:"cure"` // what to do, one or two sentences
}

// MaxReason is the longest name of a reason in bytes, the room that
// firmware/wire has for it.
const MaxReason = 32

// LookupReason finds a reason by its name.
func LookupReason(name string) (Reason, bool) {
	i, ok := slices.BinarySearchFunc(Reasons, name, func(r Reason, name string) int { return cmp.Compare(r.Name, name) })
	if !ok {
		return Reason{}, false
	}
	return Reasons[i], true
}

// Reasons are all the reasons that Racklet knows, in order of their names.
var Reasons = []Reason{
	{"bmc.damage", "records of the BMC's store are no longer readable, so its floors may be lower than they were", "Compare the floors with the rack's newest sequence, then say that you know: racklet power cycle UNIT. If it comes back, exchange the BMC board."},
	{"bmc.implausible", "what the BMC says contradicts itself, so it is not believed", "Restart the BMC; if it comes back, exchange the BMC board. The unit runs on meanwhile."},
	{"bmc.store", "the BMC could not write to its flash", "Power-cycle the tray; if it comes back, the flash is worn out: exchange the BMC board and provision the new one."},
	{"board.identity", "the EEPROM of a controller's board holds no readable identity record", "Everything works without it; only manufacturer and serial number are not known. Provision the board again, or exchange the EEPROM."},
	{"boot.config", "the BMC holds no usable boot configuration", "Provision the BMC again: its record is missing, too long or not from this version."},
	{"boot.inband", "stage 1 cannot reach its BMC over the in-band link", "Check the in-band cable (the virtio-serial port racklet.bmc on a virtual unit), then power-cycle the unit."},
	{"boot.internal", "stage 1 met an error that none of its checks names", "Read the unit's console, and power-cycle; if it comes back, report it with the console's text."},
	{"boot.reset", "the unit was reset without a power cycle, which voids its evidence", "Power-cycle the unit: only a cycle of its rail starts evidence anew."},
	{"boot.timeout", "the unit made no progress within the time given to its stage", "Read the unit's console for what it waits for, then power-cycle it."},
	{"disk.full", "the unit's data disk takes no more data", "Exchange the data disk, or make room where it lies, then power-cycle the unit: until then it stays with what it has."},
	{"disk.layout", "the unit's data disk holds something else than a Racklet unit's partitions", "If nothing on the disk is needed, blank its first and last MiB; otherwise use another disk."},
	{"enroll.expired", "the unit's identity ran out before fresh evidence renewed it", "Check that the unit's BMC and the verifier answer; the unit asks again by itself."},
	{"enroll.request", "the request for an identity is malformed or not signed by its own key", "Check that the unit runs this version of the system; power-cycle it."},
	{"enroll.silent", "the BMC does not answer the verifier, so nothing new is admitted", "Check the BMC and the bus; identities that were issued last until they run out, and the unit asks again by itself."},
	{"enroll.unit", "no unit of this name may enrol", "Check the unit's name in rack/units/ and that its slot holds a provisioned board."},
	{"evidence.boot", "the unit was power-cycled since its identity was issued", "Nothing to do: the unit enrols anew after its boot."},
	{"evidence.floor", "the BMC or the unit stands on a release below the owners' floor", "Let the unit boot the present release: racklet power cycle UNIT."},
	{"evidence.format", "the BMC's evidence is malformed or lacks a register", "Update the BMC's firmware; if it comes back, exchange the BMC board."},
	{"evidence.handover", "kernel, initramfs or command line of the handover are not those that the release fixes", "Power-cycle the unit; if it comes back, install its boot slot anew."},
	{"evidence.key", "the key that asks for an identity is not the one in the BMC's key register", "Power-cycle the unit; if it comes back, something else than the verified system talks for it."},
	{"evidence.os", "the operating system that was measured is not the release's", "Power-cycle the unit to boot it again from a verified slot."},
	{"evidence.rail", "the unit's boot was not watched from its beginning: a reset, or a restart of its BMC", "Power-cycle the unit: only a cycle of its rail starts evidence anew."},
	{"evidence.refused", "the BMC's evidence does not match the reference values of any accepted release", "Compare the registers named with the release; power-cycle the unit to boot it again from a verified slot."},
	{"evidence.root-hash", "the root hash that was measured is not the release's", "Power-cycle the unit; if it comes back, build and sign the release again."},
	{"evidence.signature", "the evidence is not signed by the key of the board that was provisioned for this slot", "If the board was exchanged on purpose, provision it; otherwise look for who did."},
	{"evidence.slot", "the evidence is about another slot, or the unit booted another image than its release's", "Install the release's boot image into the slot, then power-cycle the unit."},
	{"evidence.tree", "the desired state that the unit verified is not one that the owners' newest releases allow", "Power-cycle the unit so that it reads the newest signed state."},
	{"floor.identity", "the floor statement is for another rack", "Provision the BMC for this rack, or publish the statement of this rack's owners."},
	{"floor.rollback", "the floor statement lies below the floor that the BMC holds", "Publish a newer sequence; a floor never goes down."},
	{"floor.security", "the floor statement asks for a newer boot image than the one that is running", "Update the boot slot first, then raise the floor."},
	{"floor.statement", "the floor statement is malformed or lacks signatures of the owners' threshold", "Let enough owners sign the statement: racklet sign DIR --key owner-N.pem."},
	{"floor.tree", "the floor statement gives a known sequence to another tree", "Two trees were signed under one sequence: publish a new sequence for the wanted one."},
	{"handover.cmdline", "the command line for the next kernel is not the one that the release fixes", "Power-cycle the unit; if it comes back, install its boot slot anew."},
	{"handover.evidence", "the BMC did not take a measurement, so nothing is handed over", "Check the in-band link and the BMC's log, then power-cycle the unit."},
	{"handover.exec", "the release's init could not be started", "Check that the OS image holds /sbin/init for this platform; publish a repaired release."},
	{"handover.kernel", "slot and release have different kernels and this platform can neither kexec nor stage", "Install the release's boot image into the slot, or choose a release with the slot's kernel."},
	{"handover.kexec", "the running kernel could not load or start the release's kernel", "Use a platform that can kexec, or let the release's boot image be staged into the idle slot."},
	{"handover.mount", "the verified root image could not be mounted", "Check that slot kernel and OS image belong together; publish a repaired release."},
	{"handover.pending", "the release's boot image is staged into the idle slot and waits for a power cycle", "Nothing to do: the BMC cycles the unit. If it stays, power-cycle the unit by hand."},
	{"handover.staging", "the release's boot image could not be written to the BMC's idle slot", "Read the BMC's log for the slot it refused, then power-cycle the unit to try again."},
	{"inband.silent", "the unit stopped sending its heartbeat to the BMC", "Read the unit's console; reset or power-cycle the unit."},
	{"network.clock", "the unit's clock is not set, so that it cannot judge what has expired", "Check that the management unit runs: the BMC gets its time from there."},
	{"network.dns", "the host name of the repository or mirror cannot be resolved", "Check the DNS service of the gateway and the name in the repository's address."},
	{"network.no-carrier", "the unit's network port has no link", "Check cable and switch port of this slot."},
	{"network.no-device", "the unit found no network device", "Check that the boot image holds the driver of this platform's network device."},
	{"network.no-lease", "no DHCP server gave the unit an address", "Check that the gateway runs and that its range has free addresses."},
	{"os.blob", "a layer of the OS artefact does not have the digest that its manifest names", "Repair or replace the mirror that served it; another mirror in the rack's list is tried first."},
	{"os.cmdline", "the OS artefact's kernel command line does not match what was signed", "Build the release again, sign and push it."},
	{"os.disk", "the unit's data disk is missing, too small or fails", "Check or exchange the data disk; it needs no preparation."},
	{"os.doors", "the operating system could not rule out other kernels and modules, so it does not run", "Publish a release whose kernel has kexec_load_disabled and modules_disabled."},
	{"os.kernel", "the OS artefact's kernel does not have the digest that the release names", "Build the release again so that release and artefact agree, sign and push it."},
	{"os.manifest", "the OS artefact's manifest does not have the digest that the release names", "Push the artefact of this release to the mirror, or correct the release."},
	{"os.root", "the root image does not have the digest that the artefact names", "Repair the mirror; if the data disk failed, exchange it. The unit fetches the image anew."},
	{"os.unreachable", "no mirror served the OS artefact", "Check the mirrors in rack/rack.yaml, that they hold the release, and the network to them."},
	{"os.verity", "a block of the root image does not match its dm-verity tree", "Power-cycle the unit, which writes the image anew; if it comes back, exchange the data disk."},
	{"policy.budget", "the power policy's budget cannot be met, so the RMC keeps the one before", "Correct budget in rack/policies, sign and push."},
	{"policy.curve", "the thermal policy's fan curve cannot cool, so the RMC keeps the one before", "Correct curve in rack/policies: rising temperatures, duty never falling, 100 percent at the end; sign and push."},
	{"policy.limits", "the thermal policy's limits contradict each other, so the RMC keeps the ones before", "Correct throttle and shutdown in rack/policies, sign and push."},
	{"policy.stagger", "the power policy's stagger is too long, so the RMC keeps the one before", "Correct stagger in rack/policies, sign and push."},
	{"power.budget", "the rack's power budget has no room for the unit", "Lower a cap, switch another unit off, or fit a larger supply and raise rack/rack.yaml."},
	{"power.cap", "the unit drew more than its power cap", "Raise powerCap in the unit's file within the budget, or reduce its load."},
	{"power.good", "the unit's rail did not come up in time after the load switch closed", "Check the unit and its tray for a short circuit, then switch it on again."},
	{"power.grant", "the RMC has not granted the power that the unit asked for", "Check that the RMC answers (racklet rack power) and that the budget has room; start is staggered, so wait a moment."},
	{"power.lost", "the unit's rail failed while it ran", "Check the supply and the tray's contacts, then switch the unit on again."},
	{"power.overcurrent", "the unit drew more current than its load switch allows and was cut off", "Look for a short circuit on the tray, then switch the unit on again."},
	{"rack.commit", "the commit on the repository's ref is not the one that the owners signed", "Let the owners sign this commit, or move the ref back to the signed one."},
	{"rack.manifest", "the signed tree holds a rack object that is not valid", "Run racklet validate DIR, correct what it names, sign and push."},
	{"rack.ref", "the signed metadata is for another ref", "Publish metadata for the ref that this rack follows."},
	{"rack.repository", "the signed metadata is for another repository", "Publish metadata for the repository that this rack follows, or provision the BMCs for it."},
	{"rack.sequence", "the signed sequence is older than one that this unit accepted before", "Publish the wanted state under a new, higher sequence: racklet sign does so."},
	{"rack.stale", "the signed metadata has expired, and it is not exactly the version accepted last", "Let the owners and the online key sign fresh metadata: racklet sign."},
	{"rack.tree", "the files of the commit do not have the digest that the owners signed", "Restore the files, or let the owners sign them as they are."},
	{"release.unknown", "the unit names a release that the repository does not hold", "Add the release under rack/releases/ or correct the unit, sign and push."},
	{"slot.chunk", "a chunk of the boot slot does not have the hash that its signed manifest names", "The other slot is tried. Install the boot image into this slot anew."},
	{"slot.empty", "the boot slot holds no image", "Install a boot image into the slot."},
	{"slot.floor", "the boot slot's security version lies below the BMC's floor", "Install a boot image of a newer release; a floor never goes down."},
	{"slot.kernel", "the kernel in the boot slot is not the one that its signed manifest names", "Install the boot image into the slot anew."},
	{"slot.manifest", "the boot slot's manifest is malformed", "The other slot is tried. Install the boot image into this slot anew."},
	{"slot.none", "neither boot slot holds an image that may boot", "Install a signed boot image into a slot; the BMC's log says what is wrong with each."},
	{"slot.signature", "the boot slot's manifest lacks valid signatures of the owners' threshold", "Let enough owners sign the release, then install the boot image into the slot anew."},
	{"source.bundle", "what the repository sent is malformed or too large", "Check the repository; racklet validate DIR shows what is wrong in a working copy."},
	{"source.deploy-key", "the repository's server refused the deploy key", "Add the BMC's deploy key, read-only, to the repository, or provision a new one."},
	{"source.ref", "the repository does not have the ref that this rack follows", "Push the ref, the metadata's ref included."},
	{"source.ssh-host-key", "the repository's SSH host key is none of the pinned ones", "If the key was changed on purpose, provision its pin; otherwise someone stands between rack and repository."},
	{"source.tls-pin", "the repository's TLS key is none of the pinned ones", "If the key was changed on purpose, provision its pin; otherwise someone stands between rack and repository."},
	{"source.unreachable", "the repository's server does not answer", "Check the server and the network to it; the unit tries again by itself."},
	{"state.damaged", "the partition that the unit keeps its state on is damaged beyond what its check mends without loss, or holds something else", "Nothing was written to it. If nothing on it is needed, blank the data disk; otherwise read it elsewhere first."},
	{"thermal.sensor", "a temperature sensor does not answer", "Check the sensor's bus and connector; fans run at full speed until it answers."},
	{"thermal.shutdown", "the unit was switched off because it grew too hot", "Check fans and air path, then switch the unit on again."},
	{"thermal.throttle", "the unit's power cap is lowered because it grew hot", "Nothing at once: the cap rises again when it cools. Check fans and air path if it stays."},
	{"tuf.metadata", "a file of signed metadata is missing or malformed", "Push the whole metadata ref as racklet sign wrote it."},
	{"tuf.root", "the TUF root is not signed by the threshold of the root before it", "Let enough owners of the present root sign the new one, and publish every root in between."},
	{"tuf.root.expired", "the TUF root has expired", "Let the owners sign a new root: racklet sign."},
	{"tuf.snapshot", "the snapshot does not match the timestamp, or lacks the threshold of signatures", "Publish snapshot and timestamp together: racklet sign does so."},
	{"tuf.snapshot.expired", "the snapshot has expired", "Let the owners sign fresh metadata: racklet sign."},
	{"tuf.targets", "the targets do not match the snapshot, or lack the owners' threshold of signatures", "Let enough owners sign: racklet sign DIR --key owner-N.pem."},
	{"tuf.targets.expired", "the targets have expired", "Let the owners sign fresh metadata: racklet sign."},
	{"tuf.timestamp", "the timestamp lacks a valid signature of the online key, or is older than one seen before", "Publish a fresh timestamp with the online key."},
	{"tuf.timestamp.expired", "the timestamp has expired", "Check that the service with the online key runs and pushes fresh timestamps."},
	{"unit.absent", "the slot is empty", "Slide the tray in."},
	{"unit.platform", "the unit is of another platform than its file says", "Correct platform in the unit's file, sign and push."},
	{"unit.slot", "the unit sits in another slot than its file says", "Move the tray, or correct slot in the unit's file, sign and push."},
	{"unit.unknown", "the repository has no unit of this name", "Add the unit under rack/units/, sign and push, or provision the BMC with another name."},
}
