package redfish

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/racklet/racklet/firmware/wire/link"
	"github.com/racklet/racklet/rack"
)

// basePrefix names the version of the standard's Base message registry (DSP8011) whose
// messages are used here.
const basePrefix = "Base.1.22."

// message is one entry of @Message.ExtendedInfo.
type message struct {
	id, text, severity, resolution string
	args                           []string
	related                        string // JSON pointer of the property
}

func (m message) object() object {
	args := m.args
	if args == nil {
		args = []string{}
	}
	o := object{
		"@odata.type": "#Message.v1_3_0.Message", "MessageId": m.id, "Message": m.text, "MessageArgs": args,
		"MessageSeverity": m.severity, "Severity": m.severity, "Resolution": m.resolution,
	}
	if m.related != "" {
		o["RelatedProperties"] = []string{m.related}
	}
	return o
}

func base(id, text, resolution string, args ...string) message {
	return message{id: basePrefix + id, text: text, severity: "Warning", resolution: resolution, args: args}
}

func critical(m message) message { m.severity = "Critical"; return m }

func about(pointer string, m message) message { m.related = pointer; return m }

func msgNotFound(uri string) message {
	return critical(base("ResourceMissingAtURI", fmt.Sprintf("The resource at the URI '%s' was not found.", uri),
		"Place a valid resource at the URI or correct the URI and resubmit the request.", uri))
}

func msgMethod(method string) message {
	return critical(base("OperationNotAllowed", "The HTTP method is not allowed on this resource.",
		"Use a method that the Allow header of this answer lists; "+method+" is not one of them."))
}

func msgMalformed() message {
	return critical(base("MalformedJSON", "The request body submitted was malformed JSON and could not be parsed by the receiving service.",
		"Ensure that the request body is valid JSON and resubmit the request."))
}

func msgUnknown(name, pointer string) message {
	return about(pointer, base("PropertyUnknown", fmt.Sprintf("The property %s is not in the list of valid properties for the resource.", name),
		"Remove the unknown property from the request body and resubmit the request if the operation failed.", name))
}

func msgReadOnly(name, pointer string) message {
	return about(pointer, base("PropertyNotWritable", fmt.Sprintf("The property %s is a read-only property and cannot be assigned a value.", name),
		"Remove the property from the request body and resubmit the request if the operation failed.", name))
}

func msgType(value any, name, pointer string) message {
	v := show(value)
	return about(pointer, base("PropertyValueTypeError", fmt.Sprintf("The value '%s' for the property %s is not a type that the property can accept.", v, name),
		"Correct the value for the property in the request body and resubmit the request if the operation failed.", v, name))
}

func msgNotInList(value any, name, pointer string, allowed []string) message {
	v := show(value)
	return about(pointer, base("PropertyValueNotInList", fmt.Sprintf("The value '%s' for the property %s is not in the list of acceptable values.", v, name),
		"Choose one of: "+strings.Join(allowed, ", ")+".", v, name))
}

func msgRange(value any, name, pointer, allowed string) message {
	v := show(value)
	return about(pointer, base("PropertyValueOutOfRange", fmt.Sprintf("The value '%s' for the property %s is not in the supported range of acceptable values.", v, name),
		"Correct the value: "+allowed+".", v, name))
}

func msgConflict(name, other, pointer string) message {
	return about(pointer, base("PropertyValueConflict", fmt.Sprintf("The property '%s' could not be written because its value would conflict with the value of the '%s' property.", name, other),
		fmt.Sprintf("Give both %s and %s such that they agree.", name, other), name, other))
}

func msgActionMissing(parameter, action string) message {
	return critical(about("#/"+parameter, base("ActionParameterMissing", fmt.Sprintf("The action %s requires the parameter %s to be present in the request body.", action, parameter),
		"Supply the action with the required parameter in the request body when the request is resubmitted.", action, parameter)))
}

func msgActionUnknown(parameter, action string) message {
	return about("#/"+parameter, base("ActionParameterUnknown", fmt.Sprintf("The action %s was submitted with the invalid parameter %s.", action, parameter),
		"Correct the invalid parameter and resubmit the request if the operation failed.", action, parameter))
}

func msgActionValue(value any, parameter, action string, allowed []string) message {
	v := show(value)
	return critical(about("#/"+parameter, base("ActionParameterValueNotInList", fmt.Sprintf("The value '%s' for the parameter %s in the action %s is not in the list of acceptable values.", v, parameter, action),
		"Choose one of: "+strings.Join(allowed, ", ")+".", v, parameter, action)))
}

func msgActionFormat(value any, parameter, action, want string) message {
	v := show(value)
	return about("#/"+parameter, base("ActionParameterValueFormatError", fmt.Sprintf("The value '%s' for the parameter %s in the action %s is not a format that the parameter can accept.", v, parameter, action),
		"Give "+want+".", v, parameter, action))
}

func msgNoOperation() message {
	return base("NoOperation", "The request body submitted contain no data to act upon and no changes to the resource took place.",
		"Add properties in the JSON object and resubmit the request.")
}

func msgPrecondition() message {
	return critical(base("PreconditionFailed", "The ETag supplied did not match the ETag required to change this resource.",
		"Read the resource again, and try the operation with its present ETag."))
}

func msgODataVersion(v string) message {
	return critical(base("HeaderInvalid", fmt.Sprintf("Header '%s' is invalid.", "OData-Version: "+v), "Leave the header out or send OData-Version: 4.0.", "OData-Version: "+v))
}

func msgHeaderInvalid(name, value string) message {
	h := name + ": " + value
	return base("HeaderInvalid", fmt.Sprintf("Header '%s' is invalid.", h), "Resubmit the request with a valid request header.", h)
}

func msgMediaType() message {
	return base("HeaderInvalid", "Header 'Content-Type' is invalid.", "Send the body as application/json.", "Content-Type")
}

func msgNotAcceptable() message {
	return base("HeaderInvalid", "Header 'Accept' is invalid.", "Accept application/json.", "Accept")
}

func msgTooLarge() message {
	return base("PayloadTooLarge", "The supplied payload exceeds the maximum size supported by the service.",
		fmt.Sprintf("Send at most %d bytes.", maxBody))
}

func msgQuery(name string) message {
	return base("QueryNotSupported", "Querying is not supported by the implementation.",
		fmt.Sprintf("Leave out the query parameter %s; the service root lists those that are supported.", name))
}

func msgQueryValue(value, name, want string) message {
	return base("QueryParameterValueFormatError", fmt.Sprintf("The value '%s' for the parameter %s is not a format that the parameter can accept.", value, name),
		"Give "+want+".", value, name)
}

func msgQueryRange(value, name, allowed string) message {
	return base("QueryParameterOutOfRange", fmt.Sprintf("The value '%s' for the query parameter %s is out of range %s.", value, name, allowed),
		"Reduce the value for the query parameter to a value that is within range, such as a start or count value that is within bounds of the number of resources in a collection or a page that is within the range of valid pages.", value, name, allowed)
}

func msgUnavailable(seconds int) message {
	return critical(base("ServiceTemporarilyUnavailable", fmt.Sprintf("The service is temporarily unavailable.  Retry in %d seconds.", seconds),
		"Wait for the indicated retry duration and retry the operation.", fmt.Sprint(seconds)))
}

func msgInternal() message {
	return critical(base("InternalError", "The request failed due to an internal service error.  The service is still operational.",
		"Resubmit the request.  If the problem persists, look at the log of the service."))
}

// show prints a JSON value as it came, shortened.
func show(v any) string {
	if s, ok := v.(string); ok {
		return shorten(s)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return shorten(string(b))
}

func shorten(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

// fail answers with an error body (DSP0266, 8.6 "Error responses"). The first message is the one for people.
func fail(w http.ResponseWriter, status int, messages ...message) {
	info := make([]object, len(messages))
	for i, m := range messages {
		info[i] = m.object()
	}
	code, text := basePrefix+"GeneralError", "A general error has occurred. See ExtendedInfo for more information."
	if len(messages) == 1 {
		code, text = messages[0].id, messages[0].text
	}
	body, _ := json.Marshal(object{"error": object{"code": code, "message": text, "@Message.ExtendedInfo": info}})
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", fmt.Sprint(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Del("ETag")
	if rec, ok := w.(*recorder); ok {
		rec.entry.Result = code
	}
	w.WriteHeader(status)
	w.Write(body)
}

// failController answers for a controller that did not do what was asked.
func failController(w http.ResponseWriter, name string, err error) {
	m, status, retry := controllerMessage(name, err)
	if retry {
		w.Header().Set("Retry-After", "5")
	}
	fail(w, status, m)
}

// controllerMessage says what a controller answered instead of doing what was asked. Retry: it did not answer at all.
func controllerMessage(name string, err error) (m message, status int, retry bool) {
	var refused *link.RefusedError
	var code *link.CodeError
	switch {
	case errors.As(err, &refused):
		reason := refused.Failure.Reason.String()
		m := base("OperationFailed", "", "See the log of "+name+".")
		m.text = fmt.Sprintf("%s refused: %s: expected %s, seen %s.", name, reason, refused.Failure.Expected, refused.Failure.Seen)
		if r, ok := rack.LookupReason(reason); ok {
			m.resolution = r.Cure
		}
		return critical(m), http.StatusConflict, false
	case errors.As(err, &code):
		m := base("OperationFailed", "", "See the log and the state of "+name+", and repeat the request.")
		m.text = fmt.Sprintf("%s did not accept the request: %v.", name, err)
		return critical(m), http.StatusConflict, false
	}
	m = msgUnavailable(5)
	m.text = fmt.Sprintf("%s does not answer. %s", name, m.text)
	return m, http.StatusServiceUnavailable, true
}
