"""Start the place recognition node: `ros2 launch etr_ros etr.launch.py map:=my_map image:=/camera/image_raw`.

Loop closures while driving: `loop:=true camera_info:=/camera/camera_info depth:=/camera/aligned_depth odom:=/odom`.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

PARAMS_FILE = Path(__file__).resolve().parent.parent / "config" / "etr.yaml"
BOOLEAN = ["true", "false"]
AS_IN_FILE = "empty: as in params_file"

# Arguments that set a parameter of the node
PARAMETERS = {
    "map": "node.map",
    "image": "node.image_topic",
    "compressed": "node.compressed",
    "reliable": "node.reliable",
    "device": "compute.device",
    "autostart": "node.autostart",
    "loop": "loop.enabled",
    "camera_info": "sensor.camera_info_topic",
    "depth": "sensor.depth_topic",
    "odom": "sensor.odom_topic",
    "camera_mount": "sensor.camera_mount",
    "base_frame": "sensor.base_frame",
    "back_ends": "backend.names",
}
SWITCHES = {"compressed", "reliable", "autostart", "loop"}

ARGUMENTS = [
    DeclareLaunchArgument("map", default_value="", description=f"Folder of the map ({AS_IN_FILE})"),
    DeclareLaunchArgument("image", default_value="", description=f"Topic of the camera ({AS_IN_FILE})"),
    DeclareLaunchArgument(
        "compressed",
        default_value="",
        choices=["", *BOOLEAN],
        description=f"The image topic carries sensor_msgs/CompressedImage ({AS_IN_FILE})",
    ),
    DeclareLaunchArgument(
        "reliable",
        default_value="",
        choices=["", *BOOLEAN],
        description=f"Ask for reliable delivery of images; false for a best-effort camera ({AS_IN_FILE})",
    ),
    DeclareLaunchArgument(
        "loop",
        default_value="",
        choices=["", *BOOLEAN],
        description=f"Map while driving and look for loops; needs odometry ({AS_IN_FILE})",
    ),
    DeclareLaunchArgument(
        "camera_info", default_value="", description=f"Topic of the camera's intrinsics, for poses ({AS_IN_FILE})"
    ),
    DeclareLaunchArgument(
        "depth", default_value="", description=f"Topic of depth registered to the camera, for metres ({AS_IN_FILE})"
    ),
    DeclareLaunchArgument(
        "odom", default_value="", description=f"Topic of the odometry; TF is read without one ({AS_IN_FILE})"
    ),
    DeclareLaunchArgument(
        "camera_mount",
        default_value="",
        description=f"Camera on the body, 'x y z roll pitch yaw', m and degrees; else from TF ({AS_IN_FILE})",
    ),
    DeclareLaunchArgument("base_frame", default_value="", description=f"Frame of the robot's body ({AS_IN_FILE})"),
    DeclareLaunchArgument(
        "back_ends", default_value="", description=f"SLAM back ends to feed, such as rtabmap,initialpose ({AS_IN_FILE})"
    ),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, for example robot1"),
    DeclareLaunchArgument(
        "params_file", default_value=str(PARAMS_FILE), description="Parameter file; arguments given here win over it"
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        choices=["", "auto", "cpu", "cuda"],
        description=f"Device of the networks ({AS_IN_FILE})",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=BOOLEAN,
        description="Configure and activate by itself; false leaves that to a lifecycle manager",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error"],
        description="Least severity logged",
    ),
]


def parameters_of(given: dict[str, str]) -> dict[str, bool | str]:
    """The node's parameters by the values of the arguments; empty ones are left out."""
    return {PARAMETERS[name]: text == "true" if name in SWITCHES else text for name, text in given.items() if text}


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with the parameters of those arguments that were given."""
    parameters = parameters_of({name: LaunchConfiguration(name).perform(context) for name in PARAMETERS})
    return [
        Node(
            package="etr_ros",
            executable="etr_node",
            name="etr",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), parameters],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """All arguments, then the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start_node)])
