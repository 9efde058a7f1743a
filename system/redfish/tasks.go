package redfish

import (
	"net/http"

	"github.com/racklet/racklet/system/redfish/access"
)

const (
	taskServiceURI = root + "/TaskService"
	tasksURI       = taskServiceURI + "/Tasks"
)

// monitorURI is the task monitor of a task: it answers 202 while the task goes on, then as the operation would have
// (DSP0266, 12.2 "Asynchronous operations"). It lives below the task, for clients that take the one for the other.
func monitorURI(id string) string { return tasksURI + "/" + id + "/Monitor" }

func (s *Service) addTasks(t *router) {
	t.add(taskServiceURI, resource{get: func([]string) object {
		return object{
			"@odata.type": "#TaskService.v1_3_0.TaskService", "@odata.id": taskServiceURI, "Id": "TaskService", "Name": "Tasks",
			"ServiceEnabled": true, "Status": enabled(), "CompletedTaskOverWritePolicy": "Oldest", "LifeCycleEventOnTaskStateChange": true,
			"DateTime": volatile{stamp(s.clock.Now())}, "Tasks": ref(tasksURI),
		}
	}})
	t.add(tasksURI, resource{get: func([]string) object {
		s.tasks.mu.Lock()
		defer s.tasks.mu.Unlock()
		var ids []string
		for _, e := range s.tasks.all {
			ids = append(ids, e.ID)
		}
		return members("TaskCollection", tasksURI, "Tasks", ids)
	}})
	t.add(tasksURI+"/*", resource{get: func(p []string) object { return s.taskObject(p[0]) }, remove: func(w http.ResponseWriter, r *http.Request, p []string) {
		s.endTask(w, r, p[0], true)
	}})
	t.add(tasksURI+"/*/Monitor", resource{
		raw: func(w http.ResponseWriter, r *http.Request, p []string) { s.serveMonitor(w, r, p[0]) },
		get: nil, remove: func(w http.ResponseWriter, r *http.Request, p []string) { s.endTask(w, r, p[0], false) },
	})
}

// endTask stops a task, and forgets it if it is the task that is to go and not only its work.
func (s *Service) endTask(w http.ResponseWriter, r *http.Request, id string, forget bool) {
	e := s.tasks.find(id)
	if e == nil {
		s.failAccess(w, r, access.ErrUnknown)
		return
	}
	if err := s.tasks.stop(r.Context(), e); err != nil {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, msgUnavailable(5))
		return
	}
	if forget {
		if err := s.tasks.remove(e); err != nil {
			s.failAccess(w, r, err)
			return
		}
		s.announce(s.clock.Now(), about1("TaskRemoved", "The task with Id '%s' has been removed.", "Warning", id), tasksURI+"/"+id)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Service) taskObject(id string) object {
	e := s.tasks.find(id)
	if e == nil {
		return nil
	}
	s.tasks.mu.Lock()
	defer s.tasks.mu.Unlock()
	messages := make([]object, len(e.Messages))
	for i, m := range e.Messages {
		messages[i] = m.message().object()
	}
	o := object{
		"@odata.type": "#Task.v1_7_4.Task", "@odata.id": tasksURI + "/" + id, "Id": id, "Name": e.Name, "TaskMonitor": monitorURI(id),
		"TaskState": volatile{e.State}, "TaskStatus": volatile{e.Health}, "StartTime": stamp(e.Start), "PercentComplete": volatile{e.Percent},
		"HidePayload": true, "Messages": volatile{messages},
	}
	if e.ended() {
		o["EndTime"] = volatile{stamp(e.End)}
	}
	return o
}

// accept answers that a task was begun.
func (s *Service) accept(w http.ResponseWriter, r *http.Request, e *task) {
	w.Header().Set("Location", monitorURI(e.ID))
	w.Header().Set("Retry-After", "1")
	s.write(w, r, http.StatusAccepted, s.taskObject(e.ID))
}

func (s *Service) serveMonitor(w http.ResponseWriter, r *http.Request, id string) {
	e := s.tasks.find(id)
	if e == nil {
		w.Header().Del("Allow")
		fail(w, http.StatusNotFound, msgNotFound(shorten(r.URL.Path)))
		return
	}
	s.tasks.mu.Lock()
	code, messages := e.Code, e.Messages
	s.tasks.mu.Unlock()
	switch code {
	case 0:
		s.accept(w, r, e)
	case http.StatusOK:
		s.write(w, r, http.StatusOK, s.taskObject(id))
	default: // the message before the last says why
		if code == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "5")
		}
		fail(w, code, messages[max(len(messages)-2, 0)].message())
	}
}
