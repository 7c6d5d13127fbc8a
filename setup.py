from glob import glob

from setuptools import find_packages, setup

package_name = "etr_ros"

setup(
    name=package_name,
    version="0.1.0",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["weights/*", "report/assets/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        (f"share/{package_name}/launch", glob("launch/*.launch.py")),
        (f"share/{package_name}/config", glob("config/*")),
    ],
    python_requires=">=3.10",
    install_requires=["setuptools"],
    zip_safe=False,
    maintainer="etr_ros maintainers",
    maintainer_email="maintainers@etr-ros.example",
    description="Visual place recognition for ROS 2: retrieval, then re-ranking with ETR, an efficient transformer",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "etr = etr_ros.cli.main:main",
            "etr_node = etr_ros.ros.main:main",
        ],
    },
)
