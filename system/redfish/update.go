package redfish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/rack"
)

// Updates of boot slots. The BMC decides: it verifies the signatures of the slot manifest before it erases anything, each
// chunk as it comes, and makes the slot bootable only when all is there. The service carries the file, and tells how far it is.

const (
	maxUpdates    = 2 // whose images are in memory at a time
	activateLimit = 10 * time.Minute
	lookAgain     = 100 * time.Millisecond
	busyLimit     = 30 * time.Second // for a BMC that verifies slots just now, or whose unit writes one
)

// When an update takes effect (Settings schema, OperationApplyTime).
const (
	applyImmediate = "Immediate" // the unit is restarted gracefully
	applyOnReset   = "OnReset"   // at its next power cycle
)

// updateRequest says what to update, and when it takes effect.
type updateRequest struct {
	targets []*unit
	apply   string
}

// Messages of the standard's registry for updates.
func updateMessage(id, format, severity, resolution string, args ...string) message {
	any := make([]any, len(args))
	for i := range args {
		any[i] = args[i]
	}
	return message{id: updatePrefix + id, text: fmt.Sprintf(format, any...), severity: severity, resolution: resolution, args: args}
}

func msgTarget(target, image string) message {
	return updateMessage("TargetDetermined", "The target device '%s' will be updated with image '%s'.", "OK", "None.", target, image)
}

func msgTransferring(image, target string) message {
	return updateMessage("TransferringToComponent", "Image '%s' is being transferred to '%s'.", "OK", "None.", image, target)
}

func msgVerifying(image, target string) message {
	return updateMessage("VerifyingAtComponent", "Image '%s' is being verified at '%s'.", "OK", "None.", image, target)
}

func msgApplying(image, target string) message {
	return updateMessage("ApplyingOnComponent", "Image '%s' is being applied on '%s'.", "OK", "None.", image, target)
}

func msgAwaitActivate(image, target string) message {
	return updateMessage("AwaitToActivate", "Awaiting for an action to proceed with activating image '%s' on '%s'.", "OK",
		"Cycle the unit's power when it suits: it boots the image then.", image, target)
}

func msgUpdated(target, image string) message {
	return updateMessage("UpdateSuccessful", "Device '%s' successfully updated with image '%s'.", "OK", "None.", target, image)
}

// msgUpdateFailed is one of TransferFailed, VerificationFailed and ActivateFailed, with the reason.
func msgUpdateFailed(id, what, image, target, why, cure string) message {
	m := updateMessage(id, what+" '%s' %s '%s' failed.", "Critical", cure, image, preposition[id], target)
	m.args = []string{image, target}
	m.text += " " + why
	return m
}

var preposition = map[string]string{"TransferFailed": "to", "VerificationFailed": "at", "ActivateFailed": "on"}

// update is the work of a task: one unit after the other. Each is tried, whatever became of those before it.
func (s *Service) update(ctx context.Context, p *progress, i *bootImage, r updateRequest) error {
	var failed *taskError
	for n, u := range r.targets {
		share := func(part float64) { p.at(int((float64(n) + part) / float64(len(r.targets)) * 100)) }
		err := s.updateUnit(ctx, p, u, i, r.apply, share)
		var e *taskError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &e):
			if failed == nil {
				failed = e
			}
			if len(r.targets) > 1 {
				p.say(e.message)
			}
		case err != nil:
			return err
		}
	}
	if failed != nil {
		return failed
	}
	return nil
}

// updateUnit writes the idle slot of a unit's BMC and, if it shall take effect at once, sees to that.
func (s *Service) updateUnit(ctx context.Context, p *progress, u *unit, i *bootImage, apply string, share func(float64)) error {
	target, image := bmcURI(u), i.name()
	s.setUpdating(u, true)
	defer s.setUpdating(u, false)
	p.say(msgTransferring(image, target))
	// Sending is nearly all; the rest is for the verification and, if asked for, the boot.
	sent, rest := 0.95, 0.98
	if apply == applyImmediate {
		sent, rest = 0.75, 0.8
	}
	done, err := s.writeSlot(ctx, u, i, func(n int) {
		share(sent * float64(n) / float64(len(i.data)))
		if n == len(i.data) {
			p.say(msgVerifying(image, target))
		}
	})
	if err != nil {
		return s.explainUpdate(ctx, u, i, err)
	}
	share(rest)
	if slots, err := s.conn.Slots(ctx, u.eid); err == nil {
		s.mu.Lock()
		u.slots = slots
		s.mu.Unlock()
	}
	if apply == applyImmediate {
		p.say(msgApplying(image, target))
		if err := s.activate(ctx, u, i, done.Slot); err != nil {
			return err
		}
	} else {
		p.say(msgAwaitActivate(image, target))
	}
	p.say(msgUpdated(target, image))
	return nil
}

// setUpdating notes that a unit's slot is being written, for its inventory.
func (s *Service) setUpdating(u *unit, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.updating = on
}

// writeSlot writes the idle slot. A BMC that reads its slots just now, to boot one, is asked again; so is one that holds
// the manifest against what an update that was broken off has left, which ends that.
func (s *Service) writeSlot(ctx context.Context, u *unit, i *bootImage, progress func(int)) (wire.SlotProgress, error) {
	began := false
	note := func(n int) { began = true; progress(n) }
	leftover := true
	for end := time.Now().Add(busyLimit); ; {
		done, err := s.conn.WriteSlot(ctx, u.eid, i.data, i.signed, note)
		var code *link.CodeError
		var refused *link.RefusedError
		if !began && leftover && errors.As(err, &refused) && refused.Failure.Reason.String() == "slot.chunk" {
			leftover = false
			continue
		}
		if !began && errors.As(err, &code) && (code.Code == wire.CodeBusy || code.Code == wire.CodeNotReady) && time.Now().Before(end) {
			if err := sleep(ctx, lookAgain); err != nil {
				return done, err
			}
			continue
		}
		return done, err
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// explainUpdate turns what the BMC or the line said into the task's last word.
func (s *Service) explainUpdate(ctx context.Context, u *unit, i *bootImage, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	target, image := bmcURI(u), i.name()
	var refused *link.RefusedError
	if errors.As(err, &refused) {
		return &taskError{msgUpdateFailed("VerificationFailed", "Verification of image", image, target, "The BMC refused it: "+failureText(&refused.Failure)+".", cure(&refused.Failure))}
	}
	return &taskError{msgUpdateFailed("TransferFailed", "Transfer of image", image, target, fmt.Sprintf("%v.", err),
		"See whether the BMC answers, and repeat the update: it begins anew. The slot that boots is as it was.")}
}

func failureText(f *wire.Failure) string {
	return fmt.Sprintf("%s: expected %s, seen %s", f.Reason, f.Expected, f.Seen)
}

func cure(f *wire.Failure) string {
	if r, ok := rack.LookupReason(f.Reason.String()); ok {
		return r.Cure
	}
	return "See the log of the BMC."
}

// activate restarts a unit and waits until it runs from a slot. One that is off boots it when it is switched on.
func (s *Service) activate(ctx context.Context, u *unit, i *bootImage, slot uint8) error {
	target, image := bmcURI(u), i.name()
	failed := func(why, cure string) error {
		return &taskError{msgUpdateFailed("ActivateFailed", "Activation of image", image, target, why, cure)}
	}
	before, err := s.refresh(ctx, u)
	if err != nil {
		return failed(fmt.Sprintf("%v.", err), "Cycle the unit's power: it boots the image then.")
	}
	if !before.Rail && before.Power == wire.PowerOff {
		return nil
	}
	if err := s.reset(ctx, u, "GracefulRestart"); err != nil {
		return failed(fmt.Sprintf("%v.", err), "Cycle the unit's power: it boots the image then.")
	}
	for end := time.Now().Add(activateLimit); time.Now().Before(end); {
		if err := sleep(ctx, lookAgain); err != nil {
			return err
		}
		s.mu.RLock()
		now := u.state
		s.mu.RUnlock()
		switch fresh := now.BootCount != before.BootCount; {
		case now.State == wire.StateFaulted:
			return failed("The BMC gave up: "+failureText(&now.Failure)+".", cure(&now.Failure))
		case !fresh:
		case now.BootSlot != wire.SlotNone && now.BootSlot != slot:
			why := "The BMC booted slot " + slotLetter(now.BootSlot) + "."
			if !now.Failure.IsZero() {
				why = "The BMC booted slot " + slotLetter(now.BootSlot) + ": " + failureText(&now.Failure) + "."
			}
			return failed(why, "See the log of the BMC. The unit runs what it ran before.")
		case now.BootSlot == slot && now.Stage >= wire.StageOS && now.Stage <= wire.StageRunning:
			return nil // from here on the BMC counts the slot as proven
		}
	}
	return failed("The unit did not come to its operating system in time.", "See the log and the console of the unit. After two boots that do not get there the BMC goes back to the other slot.")
}
