// Command fakegpu is a FAKE device plugin: it offers the kubelet GPUs that do not exist.
//
// A container that is given some finds their names in NVIDIA_VISIBLE_DEVICES, as it does with NVIDIA's plugin, and
// nothing else: no device, no driver. It serves to try out what schedules and counts GPUs where there are none.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	plugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	endpoint = "fakegpu.sock"
	patience = 30 * time.Second
	pause    = 200 * time.Millisecond
)

type gpus struct {
	plugin.UnimplementedDevicePluginServer
	devices []*plugin.Device
}

func newGPUs(node string, count int) *gpus {
	devices := make([]*plugin.Device, count)
	for i := range devices {
		devices[i] = &plugin.Device{ID: fmt.Sprintf("GPU-fake-%s-%d", node, i), Health: plugin.Healthy}
	}
	return &gpus{devices: devices}
}

func (*gpus) GetDevicePluginOptions(context.Context, *plugin.Empty) (*plugin.DevicePluginOptions, error) {
	return &plugin.DevicePluginOptions{}, nil
}

// ListAndWatch says once what there is: fake GPUs neither break nor mend.
func (g *gpus) ListAndWatch(_ *plugin.Empty, stream grpc.ServerStreamingServer[plugin.ListAndWatchResponse]) error {
	if err := stream.Send(&plugin.ListAndWatchResponse{Devices: g.devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Allocate names the GPUs in the environment of each container.
func (*gpus) Allocate(_ context.Context, request *plugin.AllocateRequest) (*plugin.AllocateResponse, error) {
	answer := &plugin.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		names := strings.Join(container.DevicesIds, ",")
		answer.ContainerResponses = append(answer.ContainerResponses, &plugin.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": names},
		})
	}
	return answer, nil
}

// register announces the plugin as soon as the kubelet listens.
func register() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kubelet, err := grpc.NewClient("unix://"+plugin.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer kubelet.Close()
	request := &plugin.RegisterRequest{Version: plugin.Version, Endpoint: endpoint, ResourceName: resource}
	_, err = plugin.NewRegistrationClient(kubelet).Register(ctx, request, grpc.WaitForReady(true))
	return err
}

// serve runs one server until the kubelet starts anew: it then empties the folder of sockets and listens in it.
func serve(devices *gpus) error {
	for !exists(plugin.KubeletSocket) {
		time.Sleep(pause)
	}
	socket := filepath.Join(plugin.DevicePluginPath, endpoint)
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	defer server.Stop()
	plugin.RegisterDevicePluginServer(server, devices)
	go func() { _ = server.Serve(listener) }()
	if err := register(); err != nil {
		return err
	}
	log.Printf("the kubelet knows %d fake GPUs", len(devices.devices))
	for exists(socket) {
		time.Sleep(pause)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func main() {
	log.SetFlags(0)
	count := flag.Int("gpus", 1, "how many fake GPUs to offer")
	node := flag.String("node", "node", "the node's name, part of the GPUs' names")
	flag.Parse()
	for {
		if err := serve(newGPUs(*node, *count)); err != nil {
			log.Printf("%v; once more in a second", err)
			time.Sleep(time.Second)
		}
	}
}
