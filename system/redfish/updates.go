package redfish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/system/redfish/access"
)

const (
	updateServiceURI = root + "/UpdateService"
	inventoryURI     = updateServiceURI + "/FirmwareInventory"
	pushURI          = updateServiceURI + "/update"
	multipartURI     = updateServiceURI + "/update-multipart"
	simpleUpdate     = "UpdateService.SimpleUpdate"
	applyTime        = "@Redfish.OperationApplyTime"

	uploadStall = 30 * time.Second // without a byte of an upload
	maxParts    = 16
	maxTargets  = 64
)

// pushOptions are what clients of HttpPushUri set beforehand. They are gone with the service.
type pushOptions struct {
	targets              []string
	targetsBusy, optBusy bool
	apply                string
}

func (s *Service) addUpdates(t *router) {
	t.add(updateServiceURI, resource{get: func([]string) object { return s.updateService() }, patch: s.patchUpdateService})
	t.add(updateServiceURI+"/Actions/"+simpleUpdate, resource{post: s.postSimpleUpdate})
	t.add(pushURI, resource{upload: s.postPush})
	t.add(multipartURI, resource{upload: s.postMultipart})
	t.add(inventoryURI, resource{get: func([]string) object {
		var ids []string
		for _, u := range s.units {
			ids = append(ids, bmcID(u)+"-SlotA", bmcID(u)+"-SlotB", bmcID(u))
		}
		return members("SoftwareInventoryCollection", inventoryURI, "What boots, and what the controllers run", append(ids, "rmc"))
	}})
	t.add(inventoryURI+"/*", resource{get: func(p []string) object { return s.inventory(p[0]) }})
}

func applySupport() object {
	return object{"@odata.type": "#Settings.v1_4_1.OperationApplyTimeSupport", "SupportedValues": []string{applyImmediate, applyOnReset}}
}

func (s *Service) updateService() object {
	s.updates.mu.Lock()
	o := s.updates.options
	s.updates.mu.Unlock()
	return object{
		"@odata.type": "#UpdateService.v1_17_0.UpdateService", "@odata.id": updateServiceURI, "Id": "UpdateService", "Name": "Updates",
		"ServiceEnabled": true, "Status": enabled(), "MaxImageSizeBytes": maxUpdate, "SupportedUpdateImageFormats": []string{"VendorDefined"},
		"HttpPushUri": pushURI, "HttpPushUriTargets": list(o.targets), "HttpPushUriTargetsBusy": o.targetsBusy, "HttpPushUriOptionsBusy": o.optBusy,
		"HttpPushUriOptions":   object{"HttpPushUriApplyTime": object{"ApplyTime": o.apply, "ApplyTime@Redfish.AllowableValues": []string{applyImmediate, applyOnReset}}},
		"MultipartHttpPushUri": multipartURI, "MultipartHttpPushUri@Redfish.OperationApplyTimeSupport": applySupport(),
		"FirmwareInventory": ref(inventoryURI), "VerifyRemoteServerCertificate": true,
		"Actions": object{"#" + simpleUpdate: object{
			"target": updateServiceURI + "/Actions/" + simpleUpdate, "TransferProtocol@Redfish.AllowableValues": []string{"HTTPS"},
			"@Redfish.OperationApplyTimeSupport": applySupport(),
		}},
	}
}

func (s *Service) patchUpdateService(w http.ResponseWriter, r *http.Request, _ []string, body object) {
	s.updates.mu.Lock()
	o := s.updates.options
	s.updates.mu.Unlock()
	if !patched(w, body, s.updateService(), map[string]field{
		"HttpPushUriTargets":     setList(maxTargets, anything, "URIs of systems, BMCs or boot slots", func(v []string) { o.targets = v }),
		"HttpPushUriTargetsBusy": setBool(func(v bool) { o.targetsBusy = v }),
		"HttpPushUriOptionsBusy": setBool(func(v bool) { o.optBusy = v }),
		"HttpPushUriOptions": {sub: map[string]field{"HttpPushUriApplyTime": {sub: map[string]field{
			"ApplyTime": setEnum([]string{applyImmediate, applyOnReset}, func(v string) { o.apply = v }),
		}}}},
	}) {
		return
	}
	if _, unknown := s.targets(o.targets, nil); unknown != "" {
		fail(w, http.StatusBadRequest, about("#/HttpPushUriTargets", msgTargetUnknown(unknown)))
		return
	}
	s.updates.mu.Lock()
	s.updates.options = o
	s.updates.mu.Unlock()
	s.answer(w, r, s.updateService)
}

// version is that of a controller's own firmware; nil: not known.
func (c *controller) version() any {
	if c.firmware == "" {
		return nil
	}
	return c.firmware
}

// inventory is a boot slot, or what a controller itself runs.
func (s *Service) inventory(id string) object {
	o := object{"@odata.type": "#SoftwareInventory.v1_13_0.SoftwareInventory", "@odata.id": inventoryURI + "/" + id, "Id": id}
	fill := func(more object) object {
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	if id == "rmc" {
		return fill(object{"Name": "Firmware of the RMC", "Updateable": false, "Version": s.rmc.version(), "SoftwareId": "racklet-rmc",
			"Status": volatile{s.status(&s.rmc, "Enabled", "OK")}, "RelatedItem": []object{ref(rmcURI)}, "RelatedItem@odata.count": 1})
	}
	of, slot, isSlot := strings.Cut(id, "-Slot")
	u := s.byBMC(of)
	if u == nil {
		return nil
	}
	if !isSlot {
		return fill(object{"Name": "Firmware of the BMC of " + u.name, "Updateable": false, "Version": u.version(), "SoftwareId": "racklet-bmc",
			"Status": volatile{s.status(&u.controller, "Enabled", "OK")}, "RelatedItem": []object{ref(bmcURI(u))}, "RelatedItem@odata.count": 1})
	}
	n := slices.Index(slotRefs[:], "Slot"+slot)
	if n < 0 {
		return nil
	}
	i, active := &u.slots[n], u.state.BootSlot == uint8(n)
	var version any
	if v := i.Version.String(); v != "" {
		version = v
	}
	state, health := "StandbySpare", "OK"
	switch {
	case i.State == wire.SlotWriting && u.updating:
		state = "Updating"
	case i.State == wire.SlotEmpty || i.State == wire.SlotWriting:
		state = "Absent"
	case i.State == wire.SlotInvalid || i.State == wire.SlotBelowFloor:
		state, health = "Disabled", "Critical"
	case active:
		state = "Enabled"
	}
	return fill(object{"Name": "Boot slot " + slot + " of " + u.name, "Updateable": volatile{!active}, "Version": volatile{version}, "SoftwareId": "racklet-boot",
		"Active": volatile{active}, "ResetRequiredOnUpdate": true, "LowestSupportedVersion": nil,
		"Status":      volatile{s.status(&u.controller, state, health)},
		"RelatedItem": []object{ref(systemURI(u)), ref(bmcURI(u)), ref(systemURI(u) + "/BootOptions/Slot" + slot)}, "RelatedItem@odata.count": 3,
		"Oem": volatile{object{"Racklet": slotOem(slot, i)}}})
}

func msgTargetUnknown(uri string) message {
	return base("ActionParameterValueError", fmt.Sprintf("The value for the parameter Targets in the action %s is invalid.", simpleUpdate),
		"Name systems, BMCs, or boot slots that are not in use: '"+shorten(uri)+"' is none of them.", "Targets", simpleUpdate)
}

// targets finds the units that URIs name; none: all but the excluded. The slot that a unit boots from can be no target.
func (s *Service) targets(uris, excluded []string) (units []*unit, unknown string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	find := func(uri string) []*unit {
		uri = strings.TrimSuffix(uri, "/")
		if uri == root+"/Systems" {
			return s.units
		}
		for _, u := range s.units {
			switch uri {
			case systemURI(u), bmcURI(u), trayURI(u):
				return []*unit{u}
			}
			for n, name := range slotRefs {
				if u.state.BootSlot != uint8(n) && (uri == inventoryURI+"/"+bmcID(u)+"-"+name || uri == systemURI(u)+"/BootOptions/"+name) {
					return []*unit{u}
				}
			}
		}
		return nil
	}
	if len(uris) == 0 {
		for _, uri := range excluded {
			if find(uri) == nil {
				return nil, uri
			}
		}
		for _, u := range s.units {
			if u.online && !slices.ContainsFunc(excluded, func(uri string) bool { return slices.Contains(find(uri), u) }) {
				units = append(units, u)
			}
		}
		return units, ""
	}
	for _, uri := range uris {
		found := find(uri)
		if found == nil {
			return nil, uri
		}
		for _, u := range found {
			if !slices.Contains(units, u) {
				units = append(units, u)
			}
		}
	}
	return units, ""
}

// updateParameters are what a client says of an update, however it brings the file.
type updateParameters struct {
	targets, excluded []string
	apply             string
}

// fields are the parameters that push and pull have in common.
func (p *updateParameters) fields() map[string]field {
	p.apply = applyOnReset
	only := func(allowed bool) field {
		return field{set: func(v any, name, pointer string) *message {
			if v == allowed {
				return nil
			}
			m := msgNotInList(v, name, pointer, []string{fmt.Sprint(allowed)})
			return &m
		}}
	}
	uris := func(into *[]string) field {
		return setList(maxTargets, anything, "URIs of systems, BMCs or boot slots", func(v []string) { *into = v })
	}
	return map[string]field{
		"Targets": uris(&p.targets), "ExcludeTargets": uris(&p.excluded),
		"ForceUpdate": setBool(func(bool) {}), // there is nothing that it could force: floors never fall
		"LocalImage":  only(false), "Stage": only(false),
		applyTime: setEnum([]string{applyImmediate, applyOnReset}, func(v string) { p.apply = v }),
	}
}

// resolve finds the targets, and answers if that fails.
func (s *Service) resolve(w http.ResponseWriter, p *updateParameters) (updateRequest, bool) {
	units, unknown := s.targets(p.targets, p.excluded)
	if unknown != "" {
		fail(w, http.StatusBadRequest, about("#/Targets", msgTargetUnknown(unknown)))
		return updateRequest{}, false
	}
	if len(units) == 0 {
		w.Header().Set("Retry-After", "5")
		m := msgUnavailable(5)
		m.text = "No BMC answers. " + m.text
		fail(w, http.StatusServiceUnavailable, m)
		return updateRequest{}, false
	}
	return updateRequest{units, p.apply}, true
}

// reserve takes the place of an update; release gives it back. It answers when there is none.
func (s *Service) reserve(w http.ResponseWriter) bool {
	select {
	case s.updates.room <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "30")
		m := msgUnavailable(30)
		m.text = "Other updates are going on. " + m.text
		fail(w, http.StatusServiceUnavailable, m)
		return false
	}
}

func (s *Service) release() { <-s.updates.room }

// claim takes the targets for one update: two into one slot would spoil each other.
func (s *Service) claim(w http.ResponseWriter, r updateRequest) bool {
	s.updates.mu.Lock()
	defer s.updates.mu.Unlock()
	for _, u := range r.targets {
		if s.updates.taken[u] {
			m := base("ResourceInUse", "The change to the requested resource failed because the resource is in use or in transition.",
				bmcID(u)+" is being updated. Wait for that task, or cancel it, and resubmit the request.")
			fail(w, http.StatusConflict, m)
			return false
		}
	}
	for _, u := range r.targets {
		s.updates.taken[u] = true
	}
	return true
}

func (s *Service) unclaim(r updateRequest) {
	s.updates.mu.Lock()
	defer s.updates.mu.Unlock()
	for _, u := range r.targets {
		delete(s.updates.taken, u)
	}
}

// startUpdate makes a task of an update and answers. The place, which the caller has, is given back when it has ended. Get, if not nil, gets the file first.
func (s *Service) startUpdate(w http.ResponseWriter, r *http.Request, req updateRequest, get func(context.Context, *progress) (*bootImage, error)) {
	if !s.claim(w, req) {
		s.release()
		return
	}
	owner := ""
	if who := by(r); who != nil {
		owner = who.account
	}
	names := make([]string, len(req.targets))
	for i, u := range req.targets {
		names[i] = u.name
	}
	e, err := s.tasks.begin("Update of "+strings.Join(names, ", "), owner, func(ctx context.Context, p *progress) error {
		defer s.release()
		defer s.unclaim(req)
		image, err := get(ctx, p)
		if err != nil {
			return err
		}
		for _, u := range req.targets {
			p.say(msgTarget(bmcURI(u), image.name()))
		}
		return s.update(ctx, p, image, req)
	})
	switch {
	case errors.Is(err, access.ErrFull), errors.Is(err, errNotRunning):
		s.unclaim(req)
		s.release()
		w.Header().Set("Retry-After", "30")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(30))
	case err != nil:
		s.unclaim(req)
		s.release()
		s.failAccess(w, r, err)
	default:
		s.accept(w, r, e)
	}
}

// upload reads a request's body as long as bytes keep coming.
type upload struct {
	io.Reader
	c *http.ResponseController
}

func (u upload) Read(p []byte) (int, error) {
	now := time.Now()
	u.c.SetReadDeadline(now.Add(uploadStall))
	u.c.SetWriteDeadline(now.Add(uploadStall + writeBound))
	return u.Reader.Read(p)
}

func newUpload(w http.ResponseWriter, r *http.Request) upload {
	return upload{http.MaxBytesReader(w, r.Body, maxUpdate+maxBody), http.NewResponseController(w)}
}

func (u upload) end() { u.c.SetReadDeadline(time.Time{}) }

// failUpload answers for a body that is not what it should be.
func failUpload(w http.ResponseWriter, err error) {
	big := new(http.MaxBytesError)
	switch {
	case errors.As(err, &big):
		m := msgTooLarge()
		m.resolution = fmt.Sprintf("Send at most %d bytes.", maxUpdate)
		fail(w, http.StatusRequestEntityTooLarge, m)
	case errors.Is(err, errImage):
		fail(w, http.StatusBadRequest, msgImage(err))
	default:
		fail(w, http.StatusRequestTimeout, msgMalformed())
	}
}

func msgImage(err error) message {
	m := critical(base("InvalidUploadImage", "The upload operation was rejected because the image was invalid or corrupt.",
		"Nothing was written. Make the file anew: the signed slot manifest, and the boot image behind it."))
	m.text = strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + "."
	return m
}

// postPush takes an update file as the body; targets and time are those set beforehand.
func (s *Service) postPush(w http.ResponseWriter, r *http.Request, _ []string) {
	s.updates.mu.Lock()
	o := s.updates.options
	s.updates.mu.Unlock()
	req, ok := s.resolve(w, &updateParameters{targets: o.targets, apply: o.apply})
	if !ok || !s.reserve(w) {
		return
	}
	body := newUpload(w, r)
	image, err := readImage(body)
	body.end()
	if err != nil {
		s.release()
		failUpload(w, err)
		return
	}
	s.startUpdate(w, r, req, ready(image))
}

func ready(i *bootImage) func(context.Context, *progress) (*bootImage, error) {
	return func(context.Context, *progress) (*bootImage, error) { return i, nil }
}

// postMultipart takes an update file with its parameters (DSP0266, 12.6.2 "Software update types": multipart HTTP push). The parts come in any order.
func (s *Service) postMultipart(w http.ResponseWriter, r *http.Request, _ []string) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "multipart/form-data" {
		m := msgMediaType()
		m.resolution = "Send the body as multipart/form-data with the parts UpdateParameters and UpdateFile."
		fail(w, http.StatusUnsupportedMediaType, m)
		return
	}
	if !s.reserve(w) {
		return
	}
	body := newUpload(w, r)
	parameters, image, err := readParts(w, r, body)
	body.end()
	if err == nil && (parameters == nil || image == nil) {
		err = fmt.Errorf("%w: the parts UpdateParameters and UpdateFile are needed", errImage)
	}
	var p updateParameters
	switch {
	case err != nil:
		s.release()
		failUpload(w, err)
		return
	case !created(w, parameters, p.fields()):
		s.release()
		return
	}
	req, ok := s.resolve(w, &p)
	if !ok {
		s.release()
		return
	}
	s.startUpdate(w, r, req, ready(image))
}

func readParts(w http.ResponseWriter, r *http.Request, body io.Reader) (parameters object, image *bootImage, err error) {
	r.Body = io.NopCloser(body)
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errImage, err)
	}
	for range maxParts {
		part, err := parts.NextPart()
		if err == io.EOF {
			return parameters, image, nil
		}
		if err != nil {
			if big := new(http.MaxBytesError); errors.As(err, &big) || r.Context().Err() != nil {
				return nil, nil, err
			}
			return nil, nil, fmt.Errorf("%w: %w", errImage, err)
		}
		switch name := part.FormName(); {
		case name == "UpdateParameters" && parameters == nil:
			b, err := io.ReadAll(io.LimitReader(part, maxBody+1))
			if err != nil {
				return nil, nil, err
			}
			var o map[string]any
			if err := json.Unmarshal(b, &o); err != nil || o == nil || len(b) > maxBody {
				return nil, nil, fmt.Errorf("%w: the part UpdateParameters is no JSON object", errImage)
			}
			if rec, ok := w.(*recorder); ok {
				rec.entry.What = redact(o)
			}
			parameters = o
		case name == "UpdateFile" && image == nil:
			if image, err = readImage(part); err != nil {
				return nil, nil, err
			}
		case strings.HasPrefix(name, "Oem"): // none of ours
		default:
			return nil, nil, fmt.Errorf("%w: part %q is not known, or there twice", errImage, shorten(name))
		}
	}
	return nil, nil, fmt.Errorf("%w: more than %d parts", errImage, maxParts)
}
