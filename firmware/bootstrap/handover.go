package bootstrap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/racklet/racklet/firmware/trust"
	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/rack"
	"github.com/racklet/racklet/source"
)

// HandoverFile is where the operating system finds its Handover as JSON.
const HandoverFile = "/run/racklet/handover.json"

// ResumeFile is where the second half of a kexec finds its Handover. Stage 1
// puts it in front of the initramfs that it loads; no boot image has one, so
// that its presence says which half is running, and no word on a command line
// has to.
const ResumeFile = "/etc/racklet/resume.json"

// maxStaging is how often in a row a boot image is staged before stage 1 gives
// up and says so.
const maxStaging = 2

// compareSlot makes the release's boot image the one that boots. If another
// one runs, the release's goes into the idle slot, and the BMC cycles the
// power. It does not go round in circles: a BMC that keeps booting another
// image than the one staged stops the boot, with the reason it gave.
func (b *Boot) compareSlot(ctx context.Context, v *source.Verified, unit *rack.ComputeUnit, release *rack.Release) error {
	if !checks {
		return nil
	}
	want, err := release.Spec.Boot.SlotManifest.Sum()
	if err != nil {
		return stop("handover.staging", "", "", err)
	}
	var running, idle slotView
	if err := b.persist(ctx, "boot.inband", func(ctx context.Context) error {
		slots, booted, err := b.BMC.Slots(ctx)
		if err != nil {
			return fmt.Errorf("get boot slots: %w", err)
		}
		if booted > 1 {
			return stop("handover.staging", "boot slot A or B", fmt.Sprint(booted), errors.New("the BMC does not say what it booted"))
		}
		running = slotView{slots[booted].Digest, slots[booted].Failure.Reason.String()}
		idle = slotView{slots[1-booted].Digest, slots[1-booted].Failure.Reason.String()}
		return nil
	}); err != nil {
		return err
	}
	if running.digest == want {
		if b.record.Staging != (Staging{}) {
			b.record.Staging = Staging{}
			b.save()
		}
		return nil
	}
	if s := b.record.Staging; s.SlotManifest == release.Spec.Boot.SlotManifest && s.Attempts >= maxStaging {
		b.record.Staging = Staging{} // the next power cycle is somebody's decision and may try again
		b.save()
		because := fmt.Sprintf("staged %d times, and the BMC boots another image", s.Attempts)
		if idle.failure != "" {
			because += "; of the idle slot it says " + idle.failure
		}
		return stop("handover.staging", string(release.Spec.Boot.SlotManifest), string(rack.DigestOf(running.digest)), errors.New(because))
	}
	return b.stageSlot(ctx, v, release)
}

type slotView struct {
	digest  [32]byte
	failure string
}

// stageSlot fetches the release's boot image, checks every part of it, and
// writes it to the idle slot.
func (b *Boot) stageSlot(ctx context.Context, v *source.Verified, release *rack.Release) error {
	boot := &release.Spec.Boot
	signed := v.Slots[boot.SlotManifest]
	if signed == nil {
		return stop("handover.staging", "owners' signatures for slot manifest "+string(boot.SlotManifest), "none in the metadata", nil)
	}
	msg, _, err := trust.SplitSigned(signed)
	if err != nil {
		return stop("slot.signature", "", "", err)
	}
	if got := rack.SHA256(msg); got != boot.SlotManifest {
		return stop("slot.manifest", string(boot.SlotManifest), string(got), errors.New("digest of the signed slot manifest"))
	}
	sm, err := trust.ParseSlotManifest(msg)
	if err != nil {
		return stop("slot.manifest", "", "", err)
	}
	if got := rack.DigestOf(sm.Kernel); got != boot.Kernel {
		return stop("slot.kernel", string(boot.Kernel), string(got), errors.New("kernel named by the slot manifest"))
	}
	b.enter(ctx, wire.StageFetch)
	list := b.mirrors(v)
	doc, err := b.manifestBytes(ctx, list, boot.Artifact, boot.Digest)
	if err != nil {
		return err
	}
	m, err := parseManifest(doc, boot.Digest, typeBoot)
	if err != nil {
		return err
	}
	layer, err := m.layer(typeBootImage, maxBootImage)
	if err != nil {
		return err
	}
	if layer.Size != int64(sm.ImageSize) {
		return stop("slot.manifest", fmt.Sprint(sm.ImageSize), fmt.Sprint(layer.Size), errors.New("size of the boot image"))
	}
	image, err := b.blob(ctx, list, boot.Artifact, layer, "os.blob")
	if err != nil {
		return err
	}
	for i := range sm.Chunks {
		at := i * int(sm.ChunkSize)
		if !sm.ChunkOK(i, image[at:at+sm.ChunkLength(i)]) {
			return stop("slot.chunk", fmt.Sprintf("chunk %d as signed", i), "another one", errors.New("boot image of the artefact"))
		}
	}
	before := *b.record
	if b.record.Staging.SlotManifest != boot.SlotManifest {
		b.record.Staging = Staging{SlotManifest: boot.SlotManifest}
	}
	b.record.Staging.Attempts++
	if b.fresh != nil {
		b.record.Bundle = b.fresh // the image that boots next is the one of this state
	}
	if err := writeRecord(b.disk, b.parts.cache, b.record); err != nil {
		// Without the count this could go on for ever.
		*b.record = before
		return stop("disk.full", "", "", fmt.Errorf("note the staging: %w", err))
	}
	b.say("boot image %s goes into the idle slot", release.Spec.Version)
	if err := b.persist(ctx, "handover.staging", func(ctx context.Context) error {
		return b.BMC.Stage(ctx, image, signed)
	}); err != nil {
		return err
	}
	b.say("staged; the BMC cycles the power")
	return ErrCycle
}

// handOver starts the operating system.
func (b *Boot) handOver(ctx context.Context, v *source.Verified, unit *rack.ComputeUnit, release *rack.Release, os *system) error {
	h := &Handover{
		RackID: b.config.RackID, Unit: b.config.Unit, Slot: uint8(b.config.Slot),
		Commit: v.Commit, Sequence: v.Sequence, Stale: v.Stale,
		Release: release.Spec.Version, SecurityVersion: release.Spec.SecurityVersion,
		OSManifest: string(os.digest), RootHash: hex.EncodeToString(os.verity.Root[:]),
		Partition: os.partition.Name, Lease: b.lease, Times: b.times, Enrolment: b.config.Enrolment,
	}
	if b.Image.Kernel == release.Spec.OS.Kernel {
		h.Path = "switch_root"
		if err := b.measureHandover(ctx, b.Image.Kernel, "-", b.Machine.CommandLine()); err != nil {
			return err
		}
		if err := b.Machine.SwitchRoot(h); err != nil {
			return stop("handover.exec", "", "", err)
		}
		return nil
	}
	if !b.Machine.CanKexec() {
		return stop("handover.kernel", string(release.Spec.OS.Kernel), string(b.Image.Kernel), nil)
	}
	return b.kexec(ctx, v, release, os, h)
}

// kexec loads kernel and initramfs of the OS artefact. The initramfs gets a
// small archive in front of it that says which root to open; the init in it is
// this program, see Resume.
func (b *Boot) kexec(ctx context.Context, v *source.Verified, release *rack.Release, os *system, h *Handover) error {
	h.Path = "kexec"
	h.Verity = &VerityJSON{
		Root: h.RootHash, Salt: hex.EncodeToString(os.verity.Salt),
		DataBlocks: os.verity.DataBlocks, HashStart: os.verity.HashStart, BlockSize: os.verity.BlockSize,
	}
	if err := b.Machine.CloseRoot(); err != nil {
		return stop("handover.mount", "", "", err)
	}
	r := &release.Spec.OS
	list := b.mirrors(v)
	kd, err := os.manifest.layer(typeOSKernel, maxKernel)
	if err != nil {
		return err
	}
	if kd.Digest != r.Kernel {
		return stop("os.kernel", string(r.Kernel), string(kd.Digest), errors.New("kernel layer of the OS artefact"))
	}
	id, err := os.manifest.layer(typeOSInitramfs, maxInitramfs)
	if err != nil {
		return err
	}
	kernel, err := b.blob(ctx, list, r.Artifact, kd, "os.kernel")
	if err != nil {
		return err
	}
	initramfs, err := b.blob(ctx, list, r.Artifact, id, "os.blob")
	if err != nil {
		return err
	}
	line := b.Machine.CommandLine()
	if err := b.measureHandover(ctx, r.Kernel, string(id.Digest), line); err != nil {
		return err
	}
	doc, err := json.Marshal(h)
	if err != nil {
		return stop("boot.internal", "", "", err)
	}
	if err := b.Machine.Kexec(kernel, append(archive(ResumeFile, doc), initramfs...), line); err != nil {
		return stop("handover.kexec", "", "", err)
	}
	return nil
}

func (b *Boot) measureHandover(ctx context.Context, kernel rack.Digest, initramfs, line string) error {
	if !checks {
		return nil
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "kernel %s\ninitramfs %s\ncmdline %s\n", kernel, initramfs, line))
	return b.extend(ctx, trust.RegisterHandover, sum, "handover")
}
