"""Start the place recognition node: `ros2 launch etr_ros etr.launch.py map:=my_map image:=/camera/image_raw`."""

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
    "device": "compute.device",
    "autostart": "node.autostart",
}

ARGUMENTS = [
    DeclareLaunchArgument("map", default_value="", description=f"Folder of the map ({AS_IN_FILE})"),
    DeclareLaunchArgument("image", default_value="", description=f"Topic of the camera ({AS_IN_FILE})"),
    DeclareLaunchArgument(
        "compressed",
        default_value="",
        choices=["", *BOOLEAN],
        description=f"The image topic carries sensor_msgs/CompressedImage ({AS_IN_FILE})",
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


def start_node(context: LaunchContext) -> list[Node]:
    """The node, with the parameters of those arguments that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in PARAMETERS}
    parameters = {
        PARAMETERS[name]: text == "true" if name in {"compressed", "autostart"} else text
        for name, text in given.items()
        if text
    }
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
